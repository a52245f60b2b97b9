"""However the end of a request is hidden, what is behind it is never taken for another request.

A proxy before msgtrace may see one request where a lenient server sees two. Here the second one
deletes everything: it must not be answered, and the trace must stay.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batches import request, span, trace_id_of
from tests.end_to_end.processes import RunningProcess, running
from tests.end_to_end.senders import export

TRACE = trace_id_of("kept")
TIMEOUT_S = 10.0
SILENCE_S = 1.0
"""Answers come within milliseconds; a body that is not whole is waited for much longer."""

HIDDEN = b"DELETE /api/v1/traces?all=true HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
LENGTH = f"Content-Length: {len(HIDDEN)}"
LONGER = f"Content-Length: {len(HIDDEN) + 5}"
SIZE = f"{len(HIDDEN):x}"

# name → (headers of the first request, what stands before the hidden one)
HIDING_PLACES: dict[str, tuple[list[str], bytes]] = {
    "length and chunks": ([LONGER, "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "chunks and length": (["Transfer-Encoding: chunked", LONGER], b"0\r\n\r\n"),
    "two lengths": (["Content-Length: 0", LENGTH], b""),
    "two lengths in one": (["Content-Length: 0, 5"], b""),
    "a length with a sign": (["Content-Length: +0"], b""),
    "a negative length": (["Content-Length: -1"], b""),
    "a length in hex": (["Content-Length: 0x0"], b""),
    "a length beyond 64 bits": (["Content-Length: 18446744073709551616"], b""),
    "a length cut by a space": (["Content-Length: 0 5"], b""),
    "a space before the colon": ([LONGER, "Transfer-Encoding : chunked"], b"0\r\n\r\n"),
    "a tab before the colon": ([LONGER, "Transfer-Encoding\t: chunked"], b"0\r\n\r\n"),
    "an unknown coding": ([LONGER, "Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    "a coding after chunks": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
    "a quoted coding": ([LONGER, 'Transfer-Encoding: "chunked"'], b"0\r\n\r\n"),
    "chunks twice": ([LONGER, "Transfer-Encoding: chunked, chunked"], b"0\r\n\r\n"),
    "a folded header": ([LONGER, "X: 1\r\n Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "a folded coding": ([LONGER, "Transfer-Encoding:\r\n chunked"], b"0\r\n\r\n"),
    "a bare line feed": ([LONGER, "X: 1\nTransfer-Encoding: chunked"], b"0\r\n\r\n"),
    "a bare carriage return": ([LONGER, "X: 1\rTransfer-Encoding: chunked"], b"0\r\n\r\n"),
    "a zero byte": ([LONGER, "X: 1\0", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    "a vertical tab": ([LONGER, "Transfer-Encoding:\x0bchunked"], b"0\r\n\r\n"),
    "a chunk beyond 64 bits": (["Transfer-Encoding: chunked"], b"10000000000000000\r\n"),
    "a negative chunk": (["Transfer-Encoding: chunked"], b"-1\r\n"),
    "a chunk with 0x": (["Transfer-Encoding: chunked"], b"0x0\r\n\r\n"),
    "a chunk of a bare line feed": (["Transfer-Encoding: chunked"], b"0;a\nx\r\n\r\n"),
    "a chunk longer than it says": (["Transfer-Encoding: chunked"], b"1\r\nab0\r\n\r\n"),
    "a length within trailers": (
        ["Transfer-Encoding: chunked"],
        b"0\r\n" + LENGTH.encode() + b"\r\n\r\nX",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProcess]:
    """Both HTTP ports. The database has no part in this."""
    folder: Path = tmp_path_factory.mktemp("smuggling")
    with running("start", f"sqlite:///{folder / 'msgtrace.db'}") as process:
        export(process, request(span(trace_id=TRACE)).SerializeToString())
        yield process


@contextlib.contextmanager
def opened(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        yield connection


def answers(port: int, *requests: bytes) -> list[bytes]:
    """What comes on a connection for each of them, until it is closed or silent."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(opened(port)) for _ in requests]
        for connection, data in zip(connections, requests, strict=True):
            connection.sendall(data)
        select.select(connections, [], [], TIMEOUT_S)  # a busy machine may take its time
        time.sleep(SILENCE_S)
        return [received(connection) for connection in connections]


def received(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    parts = []
    with contextlib.suppress(ConnectionResetError, BlockingIOError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def first(headers: list[str], method: str) -> bytes:
    path = "/v1/traces" if method == "POST" else "/api/v1/stats"
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("port_name", ["http", "query"])
def test_a_hidden_request_is_not_served(
    server: RunningProcess, port_name: str, method: str
) -> None:
    sent = [first(headers, method) + before + HIDDEN for headers, before in HIDING_PLACES.values()]

    came = answers(getattr(server.ports, port_name), *sent)

    served = {
        place: answer
        for place, answer in zip(HIDING_PLACES, came, strict=True)
        if answer.count(b"HTTP/1.1 ") > 1 or b'"deleted"' in answer
    }
    assert served == {}
    assert server.get_trace(TRACE)["span_count"] == 1


@pytest.mark.parametrize("port_name", ["http", "query"])
def test_an_open_second_request_is_served(server: RunningProcess, port_name: str) -> None:
    """What the tests above look for is there when it may be."""
    port = getattr(server.ports, port_name)
    asked = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    [answer] = answers(port, asked + asked)

    assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("port_name", ["http", "query"])
@pytest.mark.parametrize(
    "lines",
    [
        ["X: " + "a" * 70_000],
        [f"X-{number}: {'a' * 30}" for number in range(2_000)],
        ["X" * 70_000 + ": a"],
    ],
    ids=["a long value", "many", "a long name"],
)
def test_headers_beyond_the_limit_are_refused(
    server: RunningProcess, port_name: str, lines: list[str]
) -> None:
    [answer] = answers(getattr(server.ports, port_name), first(lines, "GET"))

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("port_name", ["http", "query"])
def test_what_a_client_sends_cannot_add_headers_to_its_answer(
    server: RunningProcess, port_name: str
) -> None:
    path = "/%0d%0aX-Injected:%20yes%0d%0a/api/v1/traces?%0d%0aX-Injected:%20yes"
    asked = f"GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://x%0d%0aX-Injected: yes\r\n\r\n"

    [answer] = answers(getattr(server.ports, port_name), asked.encode())

    head, _, _ = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"x-injected" not in head.lower()
