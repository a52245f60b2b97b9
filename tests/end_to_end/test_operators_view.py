"""What operators see of a running service: metrics, readiness, health over gRPC, the log."""

from __future__ import annotations

import contextlib
import gzip
import secrets
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToJson
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from msgtrace.telemetry.metrics import WorkerMetrics, declarations
from tests.batches import request, span
from tests.end_to_end.processes import NO_SPILL, RunningProcess, running, wait_until
from tests.end_to_end.proxy import DatabaseProxy, database_proxy
from tests.end_to_end.senders import EXPORT_METHOD, call_grpc, export, post

TRACE_SERVICE = EXPORT_METHOD.split("/")[1]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


SOON_S = 10.0
PROMPT_S = 5.0

UNDECODABLE = b"\xff" * 8


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, verify=False, timeout=30)


def metrics_of(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample on the page, by name and labels."""
    response = get(f"{url}/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(url: str, name: str, **labels: str) -> float:
    return metrics_of(url).get((f"msgtrace_{name}", frozenset(labels.items())), 0.0)


@contextlib.contextmanager
def health_of(service: RunningProcess) -> Iterator[Any]:
    with grpc.insecure_channel(
        service.grpc_target, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def grpc_status(service: RunningProcess, name: str = "") -> Any:
    with health_of(service) as stub:
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


def send_known_traffic(service: RunningProcess) -> None:
    """Thirteen requests.

    Nine are accepted, with 3 + 3 + 2 + 1 spans, of which 3 are resent, and 3 rejected ones.
    """
    trace_id = secrets.token_bytes(16)
    three = request(*(span(f"{n}", trace_id=trace_id) for n in range(3))).SerializeToString()
    export(service, three, "http")
    export(service, three, "grpc")
    some_bad = request(
        span("good", trace_id=trace_id),
        span("no trace", trace_id=b""),
        span("no span", trace_id=trace_id, span_id=b""),
        span("zero span", trace_id=trace_id, span_id=bytes(8)),
        span("good too", trace_id=trace_id),
    )
    assert export(service, some_bad.SerializeToString(), "grpc").partial_success.rejected_spans == 3
    for _ in range(4):
        export(service, b"", "grpc")
    squeezed = request(span("squeezed", trace_id=trace_id, attributes={"long": "a" * 10_000}))
    body = gzip.compress(squeezed.SerializeToString())
    url = f"{service.otlp_url}/v1/traces"
    assert post(url, body, content_encoding="gzip").status_code == 200
    in_json = MessageToJson(request(), indent=None)
    assert post(url, in_json, content_type="application/json").status_code == 200
    for _ in range(2):
        assert post(url, UNDECODABLE).status_code == 400
    assert post(url, b"", content_type="text/plain").status_code == 415
    with pytest.raises(grpc.RpcError):
        call_grpc(service.grpc_target, UNDECODABLE)


def test_the_counters_add_up_after_known_traffic(storage_url: str) -> None:
    with running("start", storage_url) as service:
        send_known_traffic(service)
        url = service.otlp_url

        def requests(wire: str, encoding: str) -> float:
            return value(url, "requests_received_total", wire=wire, encoding=encoding)

        def refused(wire: str, reason: str) -> float:
            return value(url, "requests_refused_total", wire=wire, reason=reason)

        assert requests("grpc", "protobuf") == 7
        assert requests("http", "protobuf") == 4
        assert requests("http", "json") == 1
        assert refused("http", "malformed_request") == 2
        assert refused("http", "unsupported_media_type") == 1
        assert refused("grpc", "malformed_request") == 1
        assert value(url, "spans_received_total") == 12
        assert value(url, "spans_accepted_total") == 9
        assert value(url, "spans_stored_total") == 6
        assert value(url, "spans_duplicate_total") == 3
        assert value(url, "spans_refused_total") == 0
        assert value(url, "spans_rejected_total", reason="invalid_trace_id") == 1
        assert value(url, "spans_rejected_total", reason="invalid_span_id") == 2
        assert value(url, "flush_spans_sum") == 9
        assert value(url, "commit_seconds_count") == value(url, "flush_spans_count") == 4
        assert value(url, "acknowledgement_seconds_count", wire="grpc") == 6
        assert value(url, "acknowledgement_seconds_count", wire="http") == 3
        assert value(url, "request_received_bytes_total", wire="http") < 2_000
        assert value(url, "request_inflated_bytes_total", wire="http") > 10_000
        assert value(url, "queue_bytes") == value(url, "queue_requests") == 0
        stored = service.get("/api/v1/stats")["total_spans"]
        assert stored == value(url, "spans_stored_total")
        service.stop()

    totals = "requests=12 spans_accepted=9 spans_stored=6 spans_duplicate=3 waiting=0"
    assert f"stopped {totals}" in service.stderr


def test_both_ports_show_every_metric_and_health(service: RunningProcess) -> None:
    export(service, request(span(trace_id=secrets.token_bytes(16))).SerializeToString())
    service.get("/api/v1/services")
    for url in (service.url, service.otlp_url):
        assert get(f"{url}/health").json()["status"] == "healthy"
        assert get(f"{url}/ready").json()["status"] == "ready"
        shown = text_string_to_metric_families(get(f"{url}/metrics").text)
        names = {each.name + ("_total" if each.type == "counter" else "") for each in shown}
        of_several = {each.name for each in WorkerMetrics().declarations}
        assert declarations().keys() - names == of_several
        assert "process_resident_memory_bytes" in names


def test_the_page_tells_version_backend_and_connections(
    service: RunningProcess, shared_database_url: str
) -> None:
    backend = "sqlite" if shared_database_url.startswith("sqlite") else "postgres"
    export(service, request(span(trace_id=secrets.token_bytes(16))).SerializeToString())

    version = get(f"{service.url}/health").json()["version"]
    assert value(service.url, "build_info", version=version, database=backend) == 1
    open_connections = value(service.url, "database_connections", pool="write")
    assert (open_connections > 0) == (backend == "postgres")


def test_the_query_service_counts_by_route(service: RunningProcess) -> None:
    labels = {"route": "/api/v1/traces/{trace_id}", "method": "GET", "status": "404"}
    before = value(service.url, "query_requests_total", **labels)

    for _ in range(3):
        get(f"{service.url}/api/v1/traces/{secrets.token_hex(16)}")

    assert value(service.url, "query_requests_total", **labels) == before + 3


def test_collector_and_query_service_apart_show_their_own(storage_url: str) -> None:
    with running("collector", storage_url) as collector, running("query", storage_url) as query:
        for url in (collector.otlp_url, query.url):
            assert get(f"{url}/ready").json()["status"] == "ready"
        of_collector = {name for name, _ in metrics_of(collector.otlp_url)}
        of_query = {name for name, _ in metrics_of(query.url)}

    assert "msgtrace_queue_bytes" in of_collector - of_query
    assert "msgtrace_query_requests_total" in of_query - of_collector
    assert "msgtrace_build_info" in of_query & of_collector


def test_grpc_health_follows_the_service(service: RunningProcess) -> None:
    assert grpc_status(service) == SERVING
    assert grpc_status(service, TRACE_SERVICE) == SERVING
    with pytest.raises(grpc.RpcError) as refusal:
        grpc_status(service, "no.such.Service")
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    with health_of(service) as stub:
        listed = stub.List(health_pb2.HealthListRequest(), timeout=10).statuses
    assert {name: each.status for name, each in listed.items()} == {
        "": SERVING,
        TRACE_SERVICE: SERVING,
    }


def test_a_watcher_hears_of_a_stop_and_does_not_hold_it_up(sqlite_url: str) -> None:
    with running("collector", sqlite_url) as service, health_of(service) as stub:
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING

        took_s = service.stop()

        assert [each.status for each in watch] == [NOT_SERVING]
        assert took_s < PROMPT_S


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[DatabaseProxy]:
    with database_proxy(postgres_url) as proxy:
        yield proxy


def is_ready(service: RunningProcess) -> bool:
    """Both ports and gRPC must soon agree."""
    answers = {get(f"{url}/ready").status_code for url in (service.url, service.otlp_url)}
    return answers == {200} and grpc_status(service) == SERVING


def is_unready(service: RunningProcess) -> bool:
    answers = {get(f"{url}/ready").status_code for url in (service.url, service.otlp_url)}
    return answers == {503} and grpc_status(service) == NOT_SERVING


@pytest.mark.postgres
def test_a_database_that_goes_away_and_comes_back_is_seen(proxy: DatabaseProxy) -> None:
    with running("start", proxy.url, environment=NO_SPILL) as service:
        assert is_ready(service)

        proxy.cut()
        wait_until(lambda: is_unready(service), "the loss to be seen", SOON_S)
        response = get(f"{service.otlp_url}/ready")
        assert response.json()["status"] == "not ready"
        [reason] = response.json()["reasons"]
        assert reason.startswith("the database does not answer")
        assert get(f"{service.otlp_url}/health").status_code == 200
        assert value(service.otlp_url, "database_answers") == 0
        body = request(span(trace_id=secrets.token_bytes(16))).SerializeToString()
        assert post(f"{service.otlp_url}/v1/traces", body).status_code == 503
        refused = {"wire": "http", "reason": "storage_unavailable"}
        assert value(service.otlp_url, "requests_refused_total", **refused) == 1
        assert value(service.otlp_url, "spans_refused_total") == 1

        proxy.restore()
        wait_until(lambda: is_ready(service), "the return to be seen", SOON_S)
        assert value(service.otlp_url, "database_answers") == 1
        export(service, body)

    assert service.stderr.count("database_unreachable") == 1
    assert service.stderr.count("database_reachable_again") == 1


@pytest.mark.postgres
def test_a_collector_with_a_spill_is_ready_without_its_database(
    proxy: DatabaseProxy, tmp_path: Path
) -> None:
    environment = {"MSGTRACE_SPILL_DIR": str(tmp_path)}
    with running("start", proxy.url, environment=environment) as service:
        assert get(f"{service.otlp_url}/ready").json()["spill"]["requests"] == 0
        proxy.cut()
        body = request(span(trace_id=secrets.token_bytes(16))).SerializeToString()
        assert post(f"{service.otlp_url}/v1/traces", body).status_code == 200

        response = get(f"{service.otlp_url}/ready")
        assert response.status_code == 200
        spill = response.json()["spill"]
        assert (spill["requests"], spill["bytes"]) == (1, len(body))
        assert spill["database_away"]
        assert grpc_status(service) == SERVING
        wait_until(lambda: get(f"{service.url}/ready").status_code == 503, "503", SOON_S)
        assert value(service.otlp_url, "spilled_requests_total") == 1
        assert value(service.otlp_url, "spans_spilled_total") == 1
        assert value(service.otlp_url, "spill_requests") == 1
        assert value(service.otlp_url, "spill_bytes") == len(body)
        assert value(service.otlp_url, "spill_oldest_age_seconds") > 0
        assert value(service.otlp_url, "spans_accepted_total") == 0

        proxy.restore()
        wait_until(
            lambda: value(service.otlp_url, "spill_drained_requests_total") == 1, "a drain", SOON_S
        )
        assert value(service.otlp_url, "spill_requests") == 0
        assert value(service.otlp_url, "spans_accepted_total") == 1
        assert not get(f"{service.otlp_url}/ready").json()["spill"]["database_away"]

    for event in ("spilling reason=", "spilling_ended", "spill_drained"):
        assert service.stderr.count(event) == 1


@pytest.mark.postgres
def test_a_database_that_says_nothing_is_not_waited_for(proxy: DatabaseProxy) -> None:
    with running("start", proxy.url, environment=NO_SPILL) as service:
        proxy.freeze()
        wait_until(lambda: get(f"{service.otlp_url}/ready").status_code == 503, "503", SOON_S)
        started_s = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(get, [f"{service.url}/ready"] * 20))
        assert time.monotonic() - started_s < 2 + PROMPT_S
        assert {each.status_code for each in answers} == {503}

        proxy.thaw()
        wait_until(lambda: is_ready(service), "the return to be seen", SOON_S)


def test_a_collector_with_a_full_queue_wants_no_more_senders(sqlite_url: str) -> None:
    body = request(
        span(trace_id=secrets.token_bytes(16), attributes={"long": "a" * 900})
    ).SerializeToString()
    limit = {"MSGTRACE_MAX_QUEUED_BYTES": str(len(body))}
    path = sqlite_url.removeprefix("sqlite:///")
    with running("start", sqlite_url, environment=limit) as service, ThreadPoolExecutor() as pool:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            under_way = pool.submit(export, service, body)
            wait_until(lambda: value(service.url, "queue_requests") == 1, "a queue", SOON_S)

            response = get(f"{service.otlp_url}/ready")
            assert response.status_code == 503
            assert "queue" in response.json()["reasons"][0]
            assert grpc_status(service) == NOT_SERVING
            assert get(f"{service.url}/ready").status_code == 200
            assert post(f"{service.otlp_url}/v1/traces", body).status_code == 503
            assert value(service.url, "queue_age_seconds") > 0
            connection.execute("ROLLBACK")
        under_way.result(30)
        assert is_ready(service)
        refused = {"wire": "http", "reason": "overloaded"}
        assert value(service.url, "requests_refused_total", **refused) == 1


def test_a_stream_of_refusals_does_not_fill_the_log(sqlite_url: str) -> None:
    with running("start", sqlite_url) as service:
        for _ in range(50):
            post(f"{service.otlp_url}/v1/traces", UNDECODABLE)

    assert 0 < service.stderr.count("export_refused") <= 11


@pytest.mark.parametrize(
    ("command", "details"),
    [
        ("start", {"grpc_port", "http_port", "port", "decoder"}),
        ("collector", {"grpc_port", "http_port", "decoder"}),
        ("query", {"port"}),
    ],
)
def test_start_and_stop_are_one_line_each(
    command: str, details: set[str], storage_url: str
) -> None:
    backend = "sqlite" if storage_url.startswith("sqlite") else "postgres"
    environment = {"MSGTRACE_GRPC_PROT": "1"}
    with running(command, storage_url, environment=environment) as service:
        service.stop()

    lines = [line.split()[1:] for line in service.stderr.splitlines() if line[:2].isdigit()]
    assert [line[1] for line in lines] == ["unknown_variable", "started", "stopping", "stopped"]
    assert "did_you_mean=MSGTRACE_GRPC_PORT" in lines[0]
    started = dict(field.split("=", 1) for field in lines[1][2:])
    assert started.keys() == {"service", "version", "database", "host"} | details
    assert (started["service"], started["database"]) == (command, backend)
