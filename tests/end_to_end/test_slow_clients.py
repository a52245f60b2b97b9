"""Clients that are slow, hostile or many: they are ended, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msgtrace.connections import BODY_STALL_S, MAX_HEAD_BYTES, HttpLimits
from msgtrace.receivers.grpc import HANDSHAKE_TIMEOUT_MS
from msgtrace.serving import StopRequest, raise_open_file_limit, serve_asgi
from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, running, wait_until
from tests.end_to_end.senders import export

LIMITS = HttpLimits(
    head_s=0.5,
    body_s=1.0,
    body_stall_s=0.5,
    idle_s=2,
    write_stall_s=1.0,
    max_connections=20,
    check_interval_s=0.05,
)
PATIENCE_S = 15.0
SLACK_S = 6.0
"""How late a busy machine may be."""
LARGE_BYTES = 32 * 1024 * 1024

Run = Callable[[Coroutine[Any, Any, None]], None]
LOOPS: dict[str, Run] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


class Server:
    """serve_asgi on a thread, with an application that says what it received."""

    def __init__(self) -> None:
        self.port = 0
        self.broken_off = 0
        """Bodies that ended before they were complete."""
        self.loop: asyncio.AbstractEventLoop
        self.stopped: asyncio.Event
        self.is_ready = threading.Event()

    async def serve(self) -> None:
        routes = [
            Route("/count", self.count, methods=["POST"]),
            Route("/late", self.late, methods=["GET", "POST"]),
            Route("/large", self.large),
        ]
        self.loop, self.stopped = asyncio.get_running_loop(), asyncio.Event()
        app = Starlette(routes=routes)
        async with serve_asgi(
            app, "127.0.0.1", 0, "PORT", stop=StopRequest(), limits=LIMITS
        ) as self.port:
            self.is_ready.set()
            await self.stopped.wait()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopped.set)

    async def count(self, request: Request) -> Response:
        """How many bytes the body has."""
        try:
            body = await request.body()
        except ClientDisconnect:
            self.broken_off += 1
            return Response(status_code=400)
        return JSONResponse({"bytes": len(body), "headers": sorted(request.headers)})

    async def late(self, request: Request) -> Response:
        """Reads the body when every limit for it is over."""
        await asyncio.sleep(2 * LIMITS.body_s)
        return await self.count(request)

    async def large(self, _request: Request) -> Response:
        return Response(bytes(LARGE_BYTES))


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=LOOPS[request.param], args=(server.serve(),))
    thread.start()
    assert server.is_ready.wait(PATIENCE_S)
    try:
        yield server
    finally:
        server.stop()
        thread.join()


class Client:
    """A socket that sends what it is told, and counts the seconds until it is hung up on."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._unread = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def response(self) -> tuple[int, bytes]:
        """Status and body of the next response."""
        while b"\r\n\r\n" not in self._unread:
            self._receive()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        while len(self._unread) < size:
            self._receive()
        body, self._unread = self._unread[:size], self._unread[size:]
        return int(head.split()[1]), body

    def is_open_for(self, seconds: float) -> bool:
        """Whether nothing happens to the connection for so long."""
        self.socket.settimeout(seconds)
        try:
            self._unread += self.socket.recv(1)
        except TimeoutError:
            return True
        except ConnectionResetError:
            return False
        finally:
            self.socket.settimeout(PATIENCE_S)
        return False

    def wait_for_close(self, *, sending: bytes = b"", every_s: float = 0.1) -> float:
        """Seconds until the server closes, while `sending` goes on. Fails after PATIENCE_S."""
        started = time.monotonic()
        self.socket.settimeout(every_s)
        while time.monotonic() < started + PATIENCE_S:
            try:
                if sending:
                    self.socket.sendall(sending)
                if not self.socket.recv(65_536):
                    return time.monotonic() - started
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                return time.monotonic() - started
        raise AssertionError("the server did not close the connection")

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError
        self._unread += data


@contextlib.contextmanager
def connected(port: int) -> Iterator[Client]:
    client = Client(port)
    with client.socket:
        yield client


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with connected(server.port) as client:
        yield client


def post(body: bytes, *headers: str, path: str = "/count") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def bytes_counted(client: Client) -> int:
    status, body = client.response()
    assert status == 200
    return int(re.findall(rb'"bytes":(\d+)', body)[0])


# Time


def test_a_connection_that_says_nothing_is_closed(client: Client) -> None:
    assert LIMITS.head_s <= client.wait_for_close() < LIMITS.head_s + SLACK_S


def test_headers_that_trickle_in_are_ended(client: Client) -> None:
    client.send(b"GET /count HTTP/1.1\r\nHost: localhost\r\n")

    assert client.wait_for_close(sending=b"X: y\r\n") < LIMITS.head_s + SLACK_S


def test_the_headers_of_a_later_request_have_the_same_time(client: Client) -> None:
    client.send(post(b"first"))
    assert bytes_counted(client) == 5

    client.send(b"POST /count HTTP/1.1\r\n")

    assert LIMITS.head_s / 2 < client.wait_for_close(sending=b"X: y\r\n") < LIMITS.head_s + SLACK_S


def test_empty_lines_between_requests_do_not_keep_a_connection(client: Client) -> None:
    client.send(post(b"first"))
    assert bytes_counted(client) == 5

    assert client.wait_for_close(sending=b"\r\n") < LIMITS.head_s + SLACK_S


def test_a_connection_is_kept_between_requests_and_closed_when_idle(client: Client) -> None:
    for _ in range(2):
        client.send(post(b"again"))
        assert bytes_counted(client) == 5
        assert client.is_open_for(LIMITS.idle_s * 0.6)
    client.send(post(b"again"))
    assert bytes_counted(client) == 5

    assert LIMITS.idle_s * 0.9 < client.wait_for_close() < LIMITS.idle_s + SLACK_S


def test_a_body_that_stalls_is_ended_and_the_application_is_told(
    server: Server, client: Client
) -> None:
    before = server.broken_off
    client.send(post(bytes(100))[:-50])

    assert LIMITS.body_stall_s <= client.wait_for_close() < LIMITS.body_stall_s + SLACK_S
    wait_until(lambda: server.broken_off == before + 1, "the application to be told")


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (post(bytes(10_000))[:-10_000], b"x"),
        (
            b"POST /count HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
        ),
    ],
    ids=["length", "chunked"],
)
def test_a_body_that_trickles_in_is_ended(client: Client, head: bytes, piece: bytes) -> None:
    client.send(head)

    assert LIMITS.body_s <= client.wait_for_close(sending=piece) < LIMITS.body_s + SLACK_S


def test_a_body_that_nobody_wants_is_ended_too(client: Client) -> None:
    client.send(post(bytes(10_000), path="/none")[:-10_000])
    assert client.response()[0] == 404

    assert client.wait_for_close(sending=b"x") < LIMITS.body_s + SLACK_S


def test_a_slow_but_steady_body_is_taken(client: Client) -> None:
    for byte in (content := post(b"ten bytes!"))[:-10], *(b"%c" % each for each in content[-10:]):
        client.send(byte)
        time.sleep(LIMITS.body_s / 20)

    assert bytes_counted(client) == 10


def test_time_that_the_application_takes_is_not_the_clients(client: Client) -> None:
    client.send(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert bytes_counted(client) == 0

    client.send(post(bytes(1_000_000), path="/late"))
    assert bytes_counted(client) == 1_000_000


def test_an_answer_that_is_not_taken_is_ended(client: Client) -> None:
    client.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(LIMITS.write_stall_s * 3)

    with pytest.raises(ConnectionResetError):
        client.response()


def test_an_answer_that_is_taken_slowly_comes_whole(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as reader:
        reader.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        taken = 0
        while chunk := reader.recv(1024 * 1024):
            taken += len(chunk)
            time.sleep(0.02)

    assert taken > LARGE_BYTES


# Size and form


def status_of(client: Client, data: bytes) -> int:
    """The answer to something after which the connection is closed."""
    client.send(data)
    status, _ = client.response()
    assert client.wait_for_close() < SLACK_S
    return status


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        b"GET /count HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET /count HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 2) + b"\r\n",
        b"GET /count HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1),
        b"GET /" + b"x" * (MAX_HEAD_BYTES + 1),
    ],
    ids=["target", "header", "headers", "open header", "open target"],
)
def test_a_head_that_is_too_large_is_431(client: Client, head: bytes) -> None:
    assert status_of(client, head) == 431


def test_a_large_head_within_the_limit_is_taken(client: Client) -> None:
    client.send(post(b"12345", "X: " + "x" * (MAX_HEAD_BYTES - 200)))

    assert bytes_counted(client) == 5


def test_trailers_without_end_are_ended(server: Server) -> None:
    with connected(server.port) as client:
        client.send(b"POST /count HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        with contextlib.suppress(OSError):
            client.send(b"X: y\r\n" * MAX_HEAD_BYTES)

        assert client.wait_for_close() < SLACK_S


def test_trailers_do_not_pass_for_headers(client: Client) -> None:
    client.send(
        b"POST /count HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\nX-Late: y\r\n\r\n"
    )
    status, body = client.response()

    assert (status, b"x-late" in body) == (200, False)


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: -1",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: gzip",
    ],
)
def test_a_body_of_ambiguous_length_is_400(client: Client, headers: str) -> None:
    head = f"POST /count HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n"

    assert status_of(client, head.encode() + b"ab") == 400


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["HTTP/2", "TLS", "nonsense", "CONNECT"],
)
def test_another_protocol_is_ended_at_once(client: Client, data: bytes) -> None:
    assert status_of(client, data) == 400


def test_what_follows_a_bad_request_is_not_served(client: Client) -> None:
    assert status_of(client, b"nonsense\r\n\r\n" + post(b"served?")) == 400


def test_requests_before_a_bad_one_are_answered(client: Client) -> None:
    client.send(post(b"one") + post(b"three") + b"nonsense\r\n\r\n")

    assert bytes_counted(client) == 3
    assert bytes_counted(client) == 5
    assert client.wait_for_close() < SLACK_S


def test_a_chunk_that_is_malformed_is_400(client: Client) -> None:
    client.send(b"POST /count HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")

    assert status_of(client, b"not a size\r\n") == 400


# What well-meaning clients do


@pytest.mark.parametrize("body", [b"", b"a body that must not get lost", bytes(300_000)])
def test_an_offer_to_upgrade_is_served_over_http_1_1(client: Client, body: bytes) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")

    client.send(post(body, *offer) + post(b"the next one"))

    assert bytes_counted(client) == len(body)
    assert bytes_counted(client) == 12


def test_an_offer_to_upgrade_may_have_chunks_and_come_in_pieces(client: Client) -> None:
    content = (
        b"POST /count HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    for position in range(0, len(content), 7):
        client.send(content[position : position + 7])
        time.sleep(0.002)

    assert bytes_counted(client) == 5


def test_a_client_that_asks_first_is_told_to_go_on(client: Client) -> None:
    content = post(b"asked first", "Expect: 100-continue")

    client.send(content[:-11])
    assert client.response() == (100, b"")
    client.send(content[-11:])
    assert bytes_counted(client) == 11


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    client.send(b"".join(post(bytes(size)) for size in range(20)))

    assert [bytes_counted(client) for _ in range(20)] == list(range(20))


# Many


def test_connections_beyond_the_limit_are_closed(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(server.port)) for _ in range(25)]
        served = [is_served(each) for each in clients]

    assert served == [True] * LIMITS.max_connections + [False] * 5


def is_served(client: Client) -> bool:
    try:
        client.send(post(b"12345"))
        return bytes_counted(client) == 5
    except (ConnectionResetError, BrokenPipeError):
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProcess]:
    """The real service with its real limits."""
    path: Path = tmp_path_factory.mktemp("slow") / "msgtrace.db"
    with running("start", f"sqlite:///{path}") as process:
        yield process


@pytest.fixture
def open_files() -> Iterator[None]:
    """As many as the system allows to this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_open_file_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def body_of(name: str) -> bytes:
    return request(span(name, trace_id=secrets.token_bytes(16))).SerializeToString()


HALF_A_HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nX-"
WHOLE_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HTTP2_HANDSHAKE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


@pytest.mark.usefixtures("open_files")
@pytest.mark.parametrize(
    ("http_said", "grpc_said"),
    [(b"", b""), (HALF_A_HEAD, HALF_A_HEAD), (WHOLE_REQUEST, HTTP2_HANDSHAKE)],
    ids=["silent", "half a head", "idle after a request or handshake"],
)
def test_two_thousand_connections_without_a_request_stop_nobody(
    service: RunningProcess, http_said: bytes, grpc_said: bytes
) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(2_000):
            port = (service.ports.http, service.ports.query, service.ports.grpc)[number % 3]
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            connection.sendall(grpc_said if port == service.ports.grpc else http_said)
        took_s = []
        for wire in ["grpc", "http"] * 10:
            started = time.monotonic()
            export(service, body_of("on time"), wire)
            took_s.append(time.monotonic() - started)
        assert service.get("/api/v1/services")

    assert max(took_s) < 10
    assert sorted(took_s)[10] < 2


def test_a_stalled_body_delays_no_other_export(service: RunningProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stalled = stack.enter_context(connected(service.ports.http))
            stalled.send(
                b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                b"Content-Type: application/x-protobuf\r\n\r\nab"
            )
        started = time.monotonic()
        for wire in ("grpc", "http"):
            export(service, body_of("on time"), wire)

    assert time.monotonic() - started < BODY_STALL_S - 5


@pytest.mark.parametrize(
    "said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI"], ids=["nothing", "preface", "part"]
)
def test_a_handshake_that_stalls_is_ended_on_the_grpc_port(
    service: RunningProcess, said: bytes
) -> None:
    with connected(service.ports.grpc) as client:
        client.send(said)

        assert client.wait_for_close() < HANDSHAKE_TIMEOUT_MS / 1000 + SLACK_S


def test_http_1_1_on_the_grpc_port_is_ended_at_once(service: RunningProcess) -> None:
    with connected(service.ports.grpc) as client:
        client.send(post(b"abc", path="/v1/traces"))

        assert client.wait_for_close() < SLACK_S


def test_spans_that_come_with_an_offer_to_upgrade_are_stored(service: RunningProcess) -> None:
    trace_id = secrets.token_bytes(16)
    body = request(span("from Java", trace_id=trace_id)).SerializeToString()

    with connected(service.ports.http) as client:
        client.send(
            post(
                body,
                "Content-Type: application/x-protobuf",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
                path="/v1/traces",
            )
        )
        assert client.response()[0] == 200

    assert service.get_trace(trace_id)["root_span_name"] == "from Java"


def test_the_service_may_open_as_many_files_as_the_system_allows(service: RunningProcess) -> None:
    limits = Path(f"/proc/{service.popen.pid}/limits")
    if not limits.exists():
        pytest.skip("tells it on Linux only")
    found = re.search(r"Max open files +(\w+) +(\w+)", limits.read_text())

    assert found is not None
    assert found[1] == found[2]
