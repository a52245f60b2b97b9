"""Retention beside ingest: it disturbs nobody, survives kill -9, and several collectors agree."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from msgtrace.model.search import TraceFilter
from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.model.units import NS_PER_DAY
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from tests.batches import make_batch, span, trace_id_of
from tests.contract.purging import midnight
from tests.end_to_end.processes import RunningProcess, wait_until
from tests.faults.audit import audit
from tests.faults.private_postgres import PrivatePostgres
from tests.faults.stage import Stage, postgres_stage, sqlite_stage

SETTINGS = {"MSGTRACE_RETENTION": "7d", "MSGTRACE_RETENTION_INTERVAL_S": "0.2"}
"""The load has spans of today, of yesterday and of forty days ago, within the same traces."""

EXPIRED_TRACES = 20_000
"""A purge of about a second at the least: long enough to be killed in its middle."""

_DAY_OF_EXPIRED = -20


@contextlib.contextmanager
def stage_on(backend: str, request: pytest.FixtureRequest, seed: int) -> Iterator[Stage]:
    """Two collectors that delete what is older than a week."""
    if backend == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        with sqlite_stage(folder / "msgtrace.db", seed, collectors=2, settings=SETTINGS) as stage:
            yield stage
        return
    server: PrivatePostgres = request.getfixturevalue("server")
    with postgres_stage(server, seed, collectors=2, settings=SETTINGS) as stage:
        yield stage


async def write_expired(url: str) -> None:
    """Many traces that no retention of a week keeps; none of them goes before all are there."""
    start_ns = midnight(_DAY_OF_EXPIRED)
    async with open_storage(Settings(database_url=url)) as storage, be_the_purger(storage):
        for first in range(0, EXPIRED_TRACES, 5_000):
            spans = [
                span(f"{n}", trace_id=trace_id_of(f"expired {n}"), start_ns=start_ns + n)
                for n in range(first, first + 5_000)
            ]
            await storage.write_spans([make_batch(*spans)])


@contextlib.asynccontextmanager
async def be_the_purger(storage: Storage) -> AsyncIterator[None]:
    """Keep the collectors from purging."""
    while True:
        async with storage.maintenance.purging() as purger:
            if purger is not None:
                yield
                return
        await asyncio.sleep(0.02)


async def count_expired(url: str) -> int:
    """How many of them are left."""
    start_ns = midnight(_DAY_OF_EXPIRED)
    wanted = TraceFilter(start_ns=start_ns, end_ns=start_ns + NS_PER_DAY)
    async with open_storage(Settings(database_url=url)) as storage:
        return (await storage.get_stats(DEFAULT_TENANT, wanted)).total_traces


def metrics_of(collector: RunningProcess) -> dict[str, float]:
    """What it shows, without labels."""
    text = httpx.get(f"{collector.otlp_url}/metrics", trust_env=False, timeout=30).text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def has_succeeded_since(collector: RunningProcess, time_s: float) -> bool:
    """Whether the collector knows of a success of retention, its own or another's."""
    return metrics_of(collector)["msgtrace_retention_last_success_timestamp_seconds"] > time_s


@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def test_retention_under_load_survives_kills_and_keeps_exactly_what_is_to_be_kept(
    backend: str, request: pytest.FixtureRequest, seed: int
) -> None:
    with stage_on(backend, request, seed) as stage:
        with stage.under_load():
            stage.load.wait_for_requests(50)
            asyncio.run(write_expired(stage.database_url))
            wait_until(
                lambda: 0 < asyncio.run(count_expired(stage.database_url)) < EXPIRED_TRACES,
                "a purge to be in its middle",
            )
            assert not stage.load.troubles, stage.load.summary()

            for collector in stage.collectors:  # whichever of them is at it
                collector.kill()
            assert asyncio.run(count_expired(stage.database_url)) > 0
            for collector in list(stage.collectors):
                stage.kill_and_restart(collector)
            stage.load.wait_until_all_succeed()
            stage.load.wait_for_requests(50)
        assert stage.load.wrong_answers == []
        stage.wait_until_drained()

        # A run that begins now sees everything that was sent.
        sent_by_s = time.time()
        for collector in stage.collectors:
            wait_until(partial(has_succeeded_since, collector, sent_by_s), "retention")
            assert "Traceback" not in collector.stderr
        purged = sum(metrics_of(each)["msgtrace_purged_spans_total"] for each in stage.collectors)
        assert purged > 0
        assert asyncio.run(count_expired(stage.database_url)) == 0
        stage.close()
        audit(stage.database_url, stage.load, kept_since_ns=midnight(-7)).require_clean()
