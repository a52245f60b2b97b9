"""The background task of a collector: what it shows, and that no trouble ends it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from msgtrace.errors import StorageError, StorageUnavailable
from msgtrace.maintenance import watch
from msgtrace.maintenance.watch import maintained
from msgtrace.model.maintenance import Purged, SizeVerdict
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Maintenance, Purger, Storage
from msgtrace.telemetry.metrics import MaintenanceMetrics
from tests.contract.purging import midnight, trace_at


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'msgtrace.db'}",
        retention="2d",
        retention_interval_s=0.01,
    )


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    async with open_storage(settings) as opened:
        yield opened


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str) -> float:
    found = registry.get_sample_value(f"msgtrace_{name}")
    assert found is not None
    return found


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - metrics have no event
            await asyncio.sleep(0.005)


async def test_expired_spans_go_and_the_metrics_say_so(
    storage: Storage, settings: Settings, registry: CollectorRegistry
) -> None:
    await storage.write_spans([trace_at("old", midnight(-9), midnight(-9) + 1)])
    assert registry.get_sample_value("msgtrace_retention_enabled") is None

    async with maintained(storage.maintenance, settings, MaintenanceMetrics(registry)):
        await until(lambda: value(registry, "purged_spans_total") == 2)
        await until(lambda: value(registry, "retention_last_success_timestamp_seconds") > 0)

    assert value(registry, "retention_enabled") == 1
    assert value(registry, "purged_traces_total") == 1
    edge_s = value(registry, "retention_purged_before_timestamp_seconds")
    assert midnight(-3) / 1e9 < edge_s < midnight(-1) / 1e9
    assert value(registry, "maintenance_failures_total") == 0


async def test_without_a_policy_nothing_goes_and_no_success_is_claimed(
    storage: Storage, settings: Settings, registry: CollectorRegistry
) -> None:
    await storage.write_spans([trace_at("old", midnight(-900))])
    off = dataclasses.replace(settings, retention="off")

    async with maintained(storage.maintenance, off, MaintenanceMetrics(registry)):
        await asyncio.sleep(0.2)

    assert value(registry, "retention_enabled") == 0
    assert value(registry, "retention_last_success_timestamp_seconds") == 0
    assert (await storage.get_status()).span_count == 1


async def test_another_process_at_work_counts_as_success_once_it_succeeds(
    storage: Storage, settings: Settings, registry: CollectorRegistry
) -> None:
    async with storage.maintenance.purging() as other:
        assert other is not None
        async with maintained(storage.maintenance, settings, MaintenanceMetrics(registry)):
            await asyncio.sleep(0.1)
            assert value(registry, "retention_last_success_timestamp_seconds") == 0
            await other.record(Purged(), before_ns=5, now_ns=7_000_000_000)
            await until(lambda: value(registry, "retention_last_success_timestamp_seconds") == 7)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (StorageUnavailable("the database is away"), "maintenance_put_off"),
        (StorageError("it refuses"), "maintenance_failed"),
        (RuntimeError("a bug"), "maintenance_failed"),
    ],
)
async def test_trouble_is_counted_and_logged_and_the_next_run_goes_on(
    storage: Storage,
    settings: Settings,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    event: str,
) -> None:
    caplog.set_level(logging.INFO)
    purging, failures = storage.maintenance.purging, [error, error]

    @contextlib.asynccontextmanager
    async def failing() -> AsyncIterator[Purger | None]:
        if failures:
            raise failures.pop()
        async with purging() as purger:
            yield purger

    monkeypatch.setattr(storage.maintenance, "purging", failing)
    await storage.write_spans([trace_at("old", midnight(-9))])

    async with maintained(storage.maintenance, settings, MaintenanceMetrics(registry)):
        await until(lambda: value(registry, "purged_spans_total") == 1)

    assert value(registry, "maintenance_failures_total") == 2
    assert [record.message for record in caplog.records].count(event) == 2


async def test_the_end_does_not_wait_for_a_database_that_says_nothing(
    storage: Storage,
    settings: Settings,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_stuck = asyncio.Event()

    @contextlib.asynccontextmanager
    async def stuck() -> AsyncIterator[Purger | None]:
        try:
            is_stuck.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)  # as a ROLLBACK would
        yield None

    monkeypatch.setattr(watch, "STOP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(storage.maintenance, "purging", stuck)
    async with asyncio.timeout(5):
        async with maintained(storage.maintenance, settings, MaintenanceMetrics(registry)):
            await is_stuck.wait()


async def test_a_database_that_stays_over_its_limit_is_told_of_once(
    storage: Storage,
    settings: Settings,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As PostgreSQL's, where today's spans stay whatever they take."""
    judged = 0

    async def judge(self: Maintenance, max_bytes: int, now_ns: int) -> SizeVerdict:
        nonlocal judged
        judged += 1
        return SizeVerdict(used_bytes=max_bytes + 1, edge_ns=None)

    monkeypatch.setattr(type(storage.maintenance), "judge_size", judge)
    limited = dataclasses.replace(settings, retention="off", max_database_bytes=2**25)

    async with maintained(storage.maintenance, limited, MaintenanceMetrics(registry)):
        await until(lambda: judged > 3)

    assert value(registry, "database_bytes") == 2**25 + 1
    assert value(registry, "database_limit_bytes") == 2**25
    assert [record.message for record in caplog.records].count("database_over_limit") == 1
