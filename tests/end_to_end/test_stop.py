"""SIGTERM and SIGINT: what was received is answered and stored, then the program ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from msgtrace.pipeline.batcher import ABANDONED_GRACE_S
from msgtrace.serving import STOP_GRACE_S
from msgtrace.settings.table import NO_SPILL
from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, can_connect, running, wait_until
from tests.end_to_end.senders import EXPORT_METHOD, PROTOBUF, TIMEOUT_S, call_grpc, export, post

PROMPT_S = 5.0
"""Less than a stop waits for anything, and enough for a busy machine."""

ABANDONED_S = 2 * ABANDONED_GRACE_S
"""What a write that nobody waits for is given."""

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextlib.contextmanager
def blocked_writes(database_url: str) -> Iterator[None]:
    """Meanwhile no span can be written, as by a long transaction of somebody else."""
    if database_url.startswith("sqlite"):
        path = database_url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        return
    with asyncio.Runner() as runner:
        session: Any = runner.run(asyncpg.connect(database_url))
        runner.run(session.execute("BEGIN; LOCK TABLE spans IN SHARE MODE"))
        yield
        runner.run(session.execute("ROLLBACK"))
        runner.run(session.close())


def one_span(name: str, trace_id: bytes) -> bytes:
    return request(span(name, trace_id=trace_id)).SerializeToString()


def let_exports_arrive(service: RunningProcess) -> None:
    """Nothing shows that a request was read; a quarter of a second is long on loopback."""
    time.sleep(0.25)
    for _ in range(3):
        service.get("/health")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_an_export_under_way_is_answered_and_stored_before_the_end(
    storage_url: str, wire: str, number: signal.Signals
) -> None:
    trace_id = secrets.token_bytes(16)
    with running("start", storage_url) as service, ThreadPoolExecutor() as pool:
        with blocked_writes(storage_url):
            under_way = pool.submit(export, service, one_span("last", trace_id), wire)
            let_exports_arrive(service)

            service.send_signal(number)

            port = service.ports.grpc if wire == "grpc" else service.ports.http
            wait_until(lambda: not can_connect(port), "no more connections")
            time.sleep(0.3)  # a server that does not wait would have given up by then
            assert service.is_running
            assert not under_way.done()
        assert under_way.result(TIMEOUT_S) == ExportTraceServiceResponse()
        answered_at = time.monotonic()
        assert service.wait_for_stop() - answered_at < PROMPT_S

    with running("query", storage_url) as query:
        assert query.get_trace(trace_id)["root_span_name"] == "last"


@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_acknowledged_in_the_stream_of_a_stop_is_stored(
    storage_url: str, number: signal.Signals
) -> None:
    """Senders go on until they are refused; no answer of success may be a lie."""

    def send_until_refused(wire: str) -> list[bytes]:
        acknowledged: list[bytes] = []
        for _ in range(100_000):
            trace_id = secrets.token_bytes(16)
            try:
                export(service, one_span(wire, trace_id), wire)
            except (grpc.RpcError, httpx.TransportError):
                return acknowledged
            acknowledged.append(trace_id)
        raise AssertionError("never refused")

    with running("start", storage_url) as service, ThreadPoolExecutor() as pool:
        senders = [pool.submit(send_until_refused, wire) for wire in ("grpc", "http", "http")]
        wait_until(lambda: service.get("/api/v1/stats")["total_spans"] > 20, "some spans")
        service.stop(number)
        acknowledged = [trace_id for each in senders for trace_id in each.result(TIMEOUT_S)]

    assert len(acknowledged) > 20
    with running("query", storage_url) as query:
        for trace_id in acknowledged:
            assert query.get_trace(trace_id)["span_count"] == 1


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["start", "collector", "query"])
def test_an_idle_service_stops_at_once(
    command: str, sqlite_url: str, number: signal.Signals
) -> None:
    with running(command, sqlite_url) as service:
        assert service.stop(number) < PROMPT_S


def test_idle_connections_do_not_hold_up_a_stop(storage_url: str) -> None:
    with running("start", storage_url) as service, contextlib.ExitStack() as connections:
        client = connections.enter_context(
            httpx.Client(trust_env=False, verify=False, headers=PROTOBUF)
        )
        assert client.post(f"{service.otlp_url}/v1/traces", content=b"").status_code == 200
        assert client.post(f"{service.url}/v1/traces", content=b"").status_code == 200
        channel = connections.enter_context(grpc.insecure_channel(service.grpc_target))
        call: Any = channel.unary_unary(EXPORT_METHOD)
        assert call(b"", timeout=TIMEOUT_S) == b""
        for port in (service.ports.http, service.ports.query):
            for said in (b"", b"POST /v1/traces HTTP/1.1\r\nHost:"):
                connection = socket.create_connection(("127.0.0.1", port))
                connections.enter_context(connection)
                connection.sendall(said)

        assert service.stop() < PROMPT_S


def test_a_silent_connection_to_the_grpc_port_does_not_hold_up_a_stop(sqlite_url: str) -> None:
    with (
        running("collector", sqlite_url) as service,
        socket.create_connection(("127.0.0.1", service.ports.grpc)),
    ):
        assert service.stop() < 5 + PROMPT_S  # gRPC waits so long for a client's first words


def test_a_restart_on_the_same_ports_succeeds_at_once(storage_url: str) -> None:
    with running("start", storage_url) as first:
        export(first, one_span("first", secrets.token_bytes(16)), "grpc")
        first.stop()
        with running("start", storage_url, ports=first.ports) as second:
            export(second, one_span("second", secrets.token_bytes(16)), "grpc")

            assert second.get("/api/v1/stats")["total_spans"] == 2


def test_all_ports_stop_at_the_same_time_whatever_their_clients_do(sqlite_url: str) -> None:
    unfinished = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n0123"
    with running("start", sqlite_url) as service, contextlib.ExitStack() as stalled:
        for port in (service.ports.http, service.ports.query):
            client = stalled.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(unfinished)
        let_exports_arrive(service)

        assert service.stop() < STOP_GRACE_S + PROMPT_S


@pytest.mark.postgres
def test_what_takes_longer_than_a_stop_may_is_told_to_come_back_and_logs_no_fault(
    postgres_url: str,
) -> None:
    with (
        running("collector", postgres_url, environment={"MSGTRACE_SPILL_DIR": NO_SPILL}) as service,
        blocked_writes(postgres_url),
        ThreadPoolExecutor() as pool,
    ):
        body = one_span("late", secrets.token_bytes(16))
        over_http = pool.submit(post, f"{service.otlp_url}/v1/traces", body)
        over_grpc = pool.submit(call_grpc, service.grpc_target, body)
        time.sleep(0.5)  # for both to arrive

        assert service.stop() < STOP_GRACE_S + ABANDONED_S + PROMPT_S

        assert over_http.result(TIMEOUT_S).status_code == 503
        assert over_http.result(TIMEOUT_S).headers["retry-after"] == "1"
        error: Any = over_grpc.exception(TIMEOUT_S)
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_a_second_signal_ends_the_program_at_once(sqlite_url: str) -> None:
    with running("start", sqlite_url) as service:
        with blocked_writes(sqlite_url), ThreadPoolExecutor() as pool:
            under_way = pool.submit(export, service, one_span("lost", secrets.token_bytes(16)))
            let_exports_arrive(service)
            service.send_signal(signal.SIGTERM)
            wait_until(lambda: not can_connect(service.ports.http), "no more connections")

            service.send_signal(signal.SIGTERM)

            assert service.popen.wait(PROMPT_S) == 1
            assert under_way.exception() is not None
        assert "stopped_at_once" in service.stderr
