from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from msgtrace.cli.client import QueryService, QueryServiceError, service_url
from msgtrace.cli.replies import Deleted, TraceList
from msgtrace.settings.table import Settings
from tests.cli.canned import Asked, CannedServer, canned_server, summary, trace_list

PATH = "/api/v1/traces"


@pytest.fixture
def canned() -> Iterator[CannedServer]:
    with canned_server() as server:
        yield server


@contextmanager
def raw_server(speak: Callable[[socket.socket], None]) -> Iterator[QueryService]:
    """A server that says to its one client whatever `speak` sends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield QueryService(f"http://127.0.0.1:{listening.getsockname()[1]}", 0.5)
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4321"),
        ("0.0.0.0", "http://127.0.0.1:4321"),
        ("::", "http://[::1]:4321"),
        ("::1", "http://[::1]:4321"),
        ("traces.local", "http://traces.local:4321"),
    ],
)
def test_the_default_address_can_be_connected_to(host: str, url: str) -> None:
    assert service_url(Settings(host=host)) == url


def test_parameters_arrive_as_they_were_given(canned: CannedServer) -> None:
    canned.reply(PATH, trace_list())
    parameters = [("attr", "a=b&c"), ("attr", "d=é +%"), ("q", "x y")]

    QueryService(canned.url, 5).get(PATH, parameters)

    assert canned.asked == [Asked("GET", PATH, parameters)]


def test_a_reply_is_read_and_fields_of_a_newer_service_are_ignored(canned: CannedServer) -> None:
    canned.reply(PATH, trace_list(summary(colour="blue"), hint="new"))
    service = QueryService(canned.url, 5)

    page = service.decode(service.get(PATH), TraceList)

    assert page.traces[0].duration_ns == 12_500_000


def test_delete_asks_with_its_method(canned: CannedServer) -> None:
    canned.reply(PATH, {"deleted": 3}, method="DELETE")
    service = QueryService(canned.url, 5)

    assert service.decode(service.delete(PATH, [("all", "true")]), Deleted).deleted == 3
    assert canned.asked == [Asked("DELETE", PATH, [("all", "true")])]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_error_of_the_api_is_its_sentence(canned: CannedServer, status: int) -> None:
    canned.reply(PATH, {"detail": "limit: must be 1 to 1000\x1b[2J"}, status=status)

    with pytest.raises(QueryServiceError) as raised:
        QueryService(canned.url, 5).get(PATH)

    assert raised.value.message == r"limit: must be 1 to 1000\x1b[2J"
    assert raised.value.exit_code == 1


def test_an_absent_service_is_named_with_the_cure() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(QueryServiceError) as raised:
        QueryService(url, 5).get(PATH)

    assert raised.value.message == (
        f"no msgtrace query service at {url} (connection refused);"
        " start one with `msgtrace start` or give --url"
    )


def test_a_host_without_an_address_is_an_absent_service() -> None:
    with pytest.raises(QueryServiceError, match=r"no msgtrace query service at http://x\.invalid"):
        QueryService("http://x.invalid", 5).get(PATH)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    canned.reply(PATH, trace_list())

    assert QueryService(canned.url, 5).get(PATH)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>It works!</html>"),
        (200, b""),
        (200, b"\xff\xfe"),
        (200, b'{"items": []}'),
        (200, b'{"traces": [{"trace_id": 7}], "total": 1}'),
        (200, b'{"traces": ' + b"[" * 100_000),
        (404, b"<html>Not found</html>"),
        (502, b'{"error": "bad gateway"}'),
    ],
)
def test_something_else_than_msgtrace_is_said_to_be_so(
    canned: CannedServer, status: int, body: bytes
) -> None:
    canned.reply(PATH, body, status=status)
    service = QueryService(canned.url, 5)

    with pytest.raises(QueryServiceError, match="is not a msgtrace query service"):
        service.decode(service.get(PATH), TraceList)


def test_something_that_does_not_speak_http_is_said_to_be_so() -> None:
    with (
        raw_server(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")) as service,
        pytest.raises(QueryServiceError, match="is not a msgtrace query service"),
    ):
        service.get(PATH)


def test_a_reply_that_breaks_off_is_an_error() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"

    with (
        raw_server(lambda connection: connection.sendall(sent)) as service,
        pytest.raises(QueryServiceError, match="broke off"),
    ):
        service.get(PATH)


def test_a_service_that_says_nothing_is_not_waited_for_longer_than_told() -> None:
    started = time.monotonic()

    with (
        raw_server(lambda _: time.sleep(1.5)) as service,
        pytest.raises(QueryServiceError, match=r"did not answer within 0\.5 s"),
    ):
        service.get(PATH)
    assert time.monotonic() - started < 5


def test_a_service_that_drips_is_not_waited_for_longer_than_told() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):  # the client has hung up
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)

    started = time.monotonic()
    with (
        raw_server(drip) as service,
        pytest.raises(QueryServiceError, match=r"did not answer within 0\.5 s"),
    ):
        service.get(PATH)
    assert time.monotonic() - started < 4
