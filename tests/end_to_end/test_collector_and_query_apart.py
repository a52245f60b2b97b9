"""Collector and query service as two programs on one database, and two collectors side by side."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import grpc
import httpx
import pytest

from tests.batches import request, span
from tests.end_to_end.processes import (
    NO_SPILL,
    RunningProcess,
    can_connect,
    running,
    wait_until,
)
from tests.end_to_end.senders import TIMEOUT_S, export

WIRES = ("grpc", "http")

SPANS_PER_REQUEST = 10


@pytest.fixture(scope="module")
def query(shared_database_url: str) -> Iterator[RunningProcess]:
    with running("query", shared_database_url) as process:
        yield process


@pytest.fixture(scope="module")
def collector(shared_database_url: str, query: RunningProcess) -> Iterator[RunningProcess]:
    with running("collector", shared_database_url, environment=NO_SPILL) as process:
        yield process


def part_of_a_trace(trace_id: bytes, number: int) -> bytes:
    """A request with ten spans of the trace, one of them an error; part 0 has the root."""
    names = [f"{number}.{index}" for index in range(SPANS_PER_REQUEST)]
    return request(
        *(
            span(
                name,
                trace_id=trace_id,
                parent=None if name == "0.0" else "0.0",
                status_code=2 if name.endswith(".9") else 0,
                attributes={"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1},
            )
            for name in names
        ),
        service=f"service {number % 2}",
    ).SerializeToString()


@pytest.mark.parametrize("wire", WIRES)
def test_acknowledged_spans_are_readable_at_once_in_the_other_process(
    collector: RunningProcess, query: RunningProcess, wire: str
) -> None:
    for _ in range(20):
        trace_id = secrets.token_bytes(16)

        export(collector, part_of_a_trace(trace_id, 0), wire)

        assert query.get_trace(trace_id)["span_count"] == SPANS_PER_REQUEST


def test_a_collector_serves_no_queries_and_a_query_service_takes_no_exports(
    collector: RunningProcess, query: RunningProcess
) -> None:
    assert not can_connect(collector.ports.query)
    assert not can_connect(query.ports.grpc)
    assert not can_connect(query.ports.http)
    assert query.client.post("/v1/traces").status_code == 404


def test_a_trace_that_two_collectors_receive_has_the_right_totals(
    shared_database_url: str, collector: RunningProcess, query: RunningProcess
) -> None:
    trace_id = secrets.token_bytes(16)
    parts = [part_of_a_trace(trace_id, number) for number in range(30)]
    with (
        running("collector", shared_database_url, environment=NO_SPILL) as second,
        ThreadPoolExecutor(8) as pool,
    ):
        exports = [
            # Every part goes to one of them, every third to both at the same time.
            pool.submit(export, receiver, part, WIRES[number // 2 % 2])
            for number, part in enumerate(parts)
            for receiver in (collector, second)
            if number % 3 == 0 or receiver is (collector, second)[number % 2]
        ]
        for each in exports:
            each.result(TIMEOUT_S)

    trace = query.get_trace(trace_id)
    assert len(trace["spans"]) == trace["span_count"] == 300
    assert trace["error_count"] == 30
    # Each span states one token; the root's is that of those beneath it, and does not count.
    assert trace["input_tokens"] == 299
    assert trace["root_span_name"] == "0.0"
    assert trace["services"] == ["service 0", "service 1"]


def test_a_collector_that_is_killed_after_an_answer_loses_nothing(
    shared_database_url: str, query: RunningProcess
) -> None:
    for wire in WIRES:
        trace_id = secrets.token_bytes(16)
        with running("collector", shared_database_url, environment=NO_SPILL) as victim:
            export(victim, part_of_a_trace(trace_id, 0), wire)
            victim.kill()

        assert len(query.get_trace(trace_id)["spans"]) == SPANS_PER_REQUEST


def test_a_collector_that_is_killed_under_load_loses_nothing_that_it_acknowledged(
    shared_database_url: str, query: RunningProcess
) -> None:
    trace_id = secrets.token_bytes(16)
    numbers = count()

    def send_until_dead(wire: str) -> set[int]:
        acknowledged: set[int] = set()
        while True:
            number = next(numbers)
            try:
                export(victim, part_of_a_trace(trace_id, number), wire)
            except (grpc.RpcError, httpx.TransportError):
                return acknowledged
            acknowledged.add(number)

    with (
        running("collector", shared_database_url, environment=NO_SPILL) as victim,
        ThreadPoolExecutor(4) as pool,
    ):
        senders = [pool.submit(send_until_dead, wire) for wire in WIRES * 2]
        wait_until(lambda: next(numbers) > 50, "some exports")
        victim.kill()
        acknowledged = set().union(*(each.result(TIMEOUT_S) for each in senders))

    trace = query.get_trace(trace_id)
    stored = {int(each["name"].partition(".")[0]) for each in trace["spans"]}
    assert acknowledged
    assert acknowledged <= stored
    assert len(trace["spans"]) == trace["span_count"] == len(stored) * SPANS_PER_REQUEST
    assert trace["error_count"] == len(stored)


def test_after_a_kill_a_new_collector_goes_on_where_the_old_one_was(
    shared_database_url: str, query: RunningProcess
) -> None:
    trace_id = secrets.token_bytes(16)
    with running("collector", shared_database_url, environment=NO_SPILL) as victim:
        export(victim, part_of_a_trace(trace_id, 0), "grpc")
        victim.kill()
        with running("collector", shared_database_url, ports=victim.ports) as heir:
            # The sender has not seen the answer and sends again, and then more.
            export(heir, part_of_a_trace(trace_id, 0), "grpc")
            export(heir, part_of_a_trace(trace_id, 1), "grpc")

    assert query.get_trace(trace_id)["span_count"] == 2 * SPANS_PER_REQUEST
