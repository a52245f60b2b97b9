"""What stands between receivers and storage, put together as the settings want it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from msgtrace.otlp.rules import DEFAULT_RULES, DecodeRules
from msgtrace.pipeline.batcher import HOLD_S, Batcher
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.pipeline.sink import SpanSink
from msgtrace.pipeline.spill import open_spilling_sink
from msgtrace.settings.table import NO_SPILL, Settings, default_spill_dir
from msgtrace.storage.protocol import Storage
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_files import folder_of
from msgtrace.telemetry.collector_metrics import CollectorMetrics, SpillMetrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The sink of the receivers, and what operators see of it.

    replaces_database: whether it would acknowledge requests without the database now.
    describe: what /ready says of it. totals: what it did, also after its end.
    """

    sink: SpanSink
    queued_bytes: Callable[[], int]
    replaces_database: Callable[[], bool]
    describe: Callable[[], dict[str, object]]
    totals: Callable[[], dict[str, int]]


@asynccontextmanager
async def open_pipeline(
    settings: Settings,
    storage: Storage,
    metrics: CollectorMetrics,
    registry: CollectorRegistry,
    rules: DecodeRules = DEFAULT_RULES,
) -> AsyncIterator[Pipeline]:
    """The pipeline before `storage`, with a spill if the settings want one.

    rules: for requests that come back from the spill.
    On leaving, everything accepted is durable. Raises InvalidSetting for a spill that cannot be
    used.
    """
    keeper = DeadLetterKeeper(
        storage.dead_letters, max_bytes=settings.max_dead_letter_bytes, metrics=metrics
    )
    async with (
        keeper.watched(),
        Batcher(
            storage,
            max_batch_bytes=settings.max_batch_bytes,
            max_queued_bytes=settings.max_queued_bytes,
            hold_s=HOLD_S,
            keeper=keeper,
            metrics=metrics,
        ) as batcher,
    ):
        spill_metrics = SpillMetrics(registry)

        def queued_bytes() -> int:
            return batcher.queued_bytes

        def totals() -> dict[str, int]:
            return metrics.totals() | spill_metrics.totals()

        if not _spills(settings, storage):
            yield Pipeline(batcher, queued_bytes, lambda: False, dict, totals)
            return
        async with (
            Spill.open(
                folder_of(settings.spill_dir, settings.database_url, settings.database_schema),
                settings.max_spill_bytes,
            ) as spill,
            open_spilling_sink(
                batcher,
                spill,
                storage,
                max_batch_bytes=settings.max_batch_bytes,
                max_queued_bytes=settings.max_queued_bytes,
                metrics=spill_metrics,
                rules=rules,
            ) as sink,
        ):
            yield Pipeline(
                sink,
                queued_bytes,
                lambda: sink.has_room,
                lambda: {"spill": sink.describe()},
                totals,
            )


def _spills(settings: Settings, storage: Storage) -> bool:
    """A database in a local file needs no spill: a full disk, which fails it, fails both."""
    if settings.spill_dir == NO_SPILL:
        return False
    if not storage.can_be_away and settings.spill_dir != default_spill_dir():
        logger.warning("spill_not_used", extra={"reason": "the database is a local file"})
    return storage.can_be_away
