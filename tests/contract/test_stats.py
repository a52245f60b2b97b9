"""Sums over traces, and what an operator sees of a database."""

from __future__ import annotations

import math
from random import Random

import pytest

from msgtrace.model.search import TraceFilter
from msgtrace.model.trace import TraceStats, UsageSums
from msgtrace.settings.passwords import mask_password
from msgtrace.settings.table import Settings
from msgtrace.storage.migrate import load_migrations
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_B, make_batch, span, trace_id_of
from tests.contract.reading import TENANT

NOTHING = TraceStats(
    total_traces=0,
    traces_with_errors=0,
    total_spans=0,
    total_errors=0,
    input_tokens=0,
    output_tokens=0,
    cached_tokens=0,
    reasoning_tokens=0,
    cost=0.0,
    estimated_cost=0.0,
    by_model={},
    by_service={},
    by_day={},
    duration_p50_ns=None,
    duration_p95_ns=None,
    duration_p99_ns=None,
)


async def test_no_traces_have_sums_of_zero_and_no_percentiles(storage: Storage) -> None:
    stats = await storage.get_stats(TENANT, TraceFilter())

    assert stats == NOTHING
    assert stats.error_rate == 0.0


async def test_sums_are_over_the_matching_traces(storage: Storage) -> None:
    says = {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cost.amount": 0.5,
    }
    await storage.write_spans(
        [
            make_batch(
                span("a", duration_ns=50),
                span("b", parent="a", duration_ns=10, status_code=2, attributes=says),
                span("c", parent="a", duration_ns=10, status_code=2, attributes=says),
            ),
            make_batch(
                span("d", trace_id=TRACE_B, duration_ns=70, attributes=says), service="bank"
            ),
        ]
    )

    stats = await storage.get_stats(TENANT, TraceFilter())
    of_bank = await storage.get_stats(TENANT, TraceFilter(service_name="bank"))

    of_calls = UsageSums(
        model_calls=3,
        input_tokens=30,
        output_tokens=9,
        cached_tokens=0,
        reasoning_tokens=0,
        cost=1.5,
        estimated_cost=0.0,
    )
    assert stats == TraceStats(
        total_traces=2,
        traces_with_errors=1,
        total_spans=4,
        total_errors=2,
        input_tokens=30,
        output_tokens=9,
        cached_tokens=0,
        reasoning_tokens=0,
        cost=1.5,
        estimated_cost=0.0,
        by_model={None: of_calls},
        by_service=stats.by_service,
        by_day={"2026-03-01": of_calls},
        duration_p50_ns=50,
        duration_p95_ns=70,
        duration_p99_ns=70,
    )
    assert [(name, each.cost) for name, each in stats.by_service.items()] == [
        ("shop", 1.0),
        ("bank", 0.5),
    ]
    assert stats.error_rate == 0.5
    assert (of_bank.total_traces, of_bank.total_spans, of_bank.input_tokens) == (1, 1, 10)
    assert of_bank.duration_p50_ns == 70


@pytest.mark.parametrize("count", [1, 2, 3, 19, 20, 100, 101])
async def test_percentiles_are_nearest_rank(storage: Storage, count: int) -> None:
    durations = Random(count).sample(range(1_000), count)
    spans = [
        span(f"{n}", trace_id=trace_id_of(f"{n}"), duration_ns=duration)
        for n, duration in enumerate(durations)
    ]
    await storage.write_spans([make_batch(*spans)])

    stats = await storage.get_stats(TENANT, TraceFilter())

    ranked = sorted(durations)
    assert [stats.duration_p50_ns, stats.duration_p95_ns, stats.duration_p99_ns] == [
        ranked[math.ceil(count * share / 100) - 1] for share in (50, 95, 99)
    ]


async def test_sums_beyond_64_bits_are_no_trouble(storage: Storage) -> None:
    says = {"gen_ai.usage.input_tokens": 2**31 - 1}
    spans = [span(f"{n}", attributes=says, start_ns=0, duration_ns=2**63 - 1) for n in range(100)]
    spans += [span(f"{n}", trace_id=TRACE_B, start_ns=0, duration_ns=2**63 - 1) for n in range(9)]
    await storage.write_spans([make_batch(*spans)])

    stats = await storage.get_stats(TENANT, TraceFilter())

    assert stats.input_tokens == 100 * (2**31 - 1)
    assert stats.duration_p50_ns == 2**63 - 1


async def test_the_status_counts_what_is_stored(storage: Storage, settings: Settings) -> None:
    spans = [span("a"), span("b"), span("c", trace_id=TRACE_B, start_ns=NOON_NS + 1)]
    await storage.write_spans([make_batch(*spans)])
    await storage.write_spans([make_batch(*spans)])
    await storage.check()

    status = await storage.get_status()

    assert (status.trace_count, status.span_count) == (2, 3)
    assert status.schema_version == load_migrations(status.backend)[-1].number
    assert settings.database_url.startswith(status.backend)
    assert status.database_bytes > 4_000
    assert any(letter.isdigit() for letter in status.server_version)
    assert status.url == mask_password(settings.database_url)
