"""The server of `quick_start`: started, found, refused, lost, and never in the program's way."""

from __future__ import annotations

import http.server
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.processes import Ports, running
from tests.integration.runs import Desk, run_program

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.free(tmp_path)


def test_a_provider_that_is_set_is_listened_to_and_left_as_it_was(desk: Desk) -> None:
    done = desk.run("listens_to_the_provider_that_is_set")

    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")
    assert desk.spans() == {"first": 1, "second": 1, "third": 1}


def test_a_server_can_be_started_first_and_recorded_into_later(desk: Desk) -> None:
    done = desk.run("records_later")

    assert (done.returncode, done.stderr) == (0, "")
    assert desk.spans() == {"after": 1}


def test_a_msgtrace_on_the_port_is_used_and_outlives_the_program(
    desk: Desk, tmp_path: Path
) -> None:
    (grpc, http_port) = (Ports.free().grpc, Ports.free().http)
    ports = Ports(grpc=grpc, http=http_port, query=desk.port)
    with running("start", f"sqlite:///{tmp_path / 'other.db'}", ports=ports) as service:
        done = desk.run("ends_without_stop")

        assert (done.returncode, done.stderr) == (0, "")
        assert [trace["root_span_name"] for trace in service.get("/api/v1/traces")["traces"]] == [
            "last"
        ]
    assert not desk.database.exists()


def test_a_query_service_alone_is_told_from_a_collector(desk: Desk, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    ports = Ports.free()
    with running("query", url, ports=Ports(grpc=ports.grpc, http=ports.http, query=desk.port)):
        done = desk.run("works_without_observer")

    assert (done.returncode, done.stdout) == (0, "False\nFalse\n")
    assert "only answers queries" in done.stderr


@contextmanager
def stranger(port: int, *, answers: bool) -> Iterator[None]:
    """Another program on the port: a web server, or one that takes connections and says nothing."""
    if not answers:
        with socket.create_server(("127.0.0.1", port)):
            yield
        return
    with web_server(http.server.BaseHTTPRequestHandler, port):
        yield


@contextmanager
def web_server(handler: type[http.server.BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    """Serves in a thread; yields the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "is silent"])
def test_a_stranger_on_the_port_costs_the_traces_and_nothing_else(
    desk: Desk, answers: bool
) -> None:
    with stranger(desk.port, answers=answers):
        done = desk.run("works_without_observer")

    assert (done.returncode, done.stdout) == (0, "False\nFalse\n")
    assert "is taken by another program that is not msgtrace" in done.stderr
    assert not desk.database.exists()


def test_a_server_that_cannot_start_says_why(desk: Desk) -> None:
    desk.database.write_text("this is no database, and long enough to be looked at as one")

    done = desk.run("works_without_observer")

    assert (done.returncode, done.stdout) == (0, "False\nFalse\n")
    assert "no traces are recorded: the server ended at once: " in done.stderr
    assert str(desk.database) in done.stderr


def server_of(program: subprocess.Popen[str]) -> psutil.Process:
    """The child process that serves."""
    (server,) = psutil.Process(program.pid).children()
    return server


def say(program: subprocess.Popen[str], line: object = 15) -> None:
    """A line to the program: how long its flush may take, or anything that lets it go on."""
    assert program.stdin is not None
    program.stdin.write(f"{line}\n")
    program.stdin.flush()


def hear(program: subprocess.Popen[str]) -> list[str]:
    assert program.stdout is not None
    return program.stdout.readline().split()


def test_a_killed_server_is_replaced_and_the_program_does_not_notice(desk: Desk) -> None:
    with desk.running("sends_in_two_goes") as program:
        assert hear(program) == ["ready"]
        server_of(program).send_signal(signal.SIGKILL)
        desk.wait_until_free()
        say(program)
        stalled_s, is_complete = hear(program)
        say(program)
        said = program.communicate(timeout=20)[1]

    assert (program.returncode, said) == (0, "")
    assert float(stalled_s) < 1
    assert is_complete == "True"
    assert desk.spans() == {"first go": 1, "second go": 100}


def test_a_frozen_server_delays_the_end_of_the_program_by_seconds_only(desk: Desk) -> None:
    with desk.running("sends_in_two_goes") as program:
        assert hear(program) == ["ready"]
        server = server_of(program)
        server.suspend()
        try:
            say(program, 0.5)
            stalled_s, is_complete = hear(program)
            say(program)
            asked_at = time.monotonic()
            program.wait(20)
            ended_after_s = time.monotonic() - asked_at
        finally:
            server.resume()

    assert program.returncode == 0
    assert float(stalled_s) < 1
    assert is_complete == "False"
    assert ended_after_s < 10
    desk.wait_until_free()


def test_two_programs_share_a_server_and_the_second_outlives_the_first(desk: Desk) -> None:
    with desk.running("sends_in_two_goes") as first:
        assert hear(first) == ["ready"]
        with desk.running("sends_in_two_goes") as second:
            assert hear(second) == ["ready"]
            assert psutil.Process(second.pid).children() == []
            say(first)
            assert hear(first)[1] == "True"
            say(first)
            first.wait(20)
            say(second)
            assert hear(second)[1] == "True"
            say(second)
            said = second.communicate(timeout=20)[1]

    assert (second.returncode, said) == (0, "")
    assert desk.spans() == {"first go": 2, "second go": 200}


def test_an_endpoint_elsewhere_is_sent_to_with_headers(tmp_path: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.headers["x-key"]))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with web_server(Collector) as port:
        done = run_program("sends_to", f"http://127.0.0.1:{port}")

    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert seen == [("/v1/traces", "secret")]


def test_a_dead_endpoint_delays_the_end_of_the_program_by_seconds_only(desk: Desk) -> None:
    done = run_program("sends_to", desk.url)

    assert (done.returncode, done.stdout) == (0, "False\n")
    assert "are lost" in done.stderr
    with pytest.raises(httpx.TransportError):
        httpx.get(desk.url)
