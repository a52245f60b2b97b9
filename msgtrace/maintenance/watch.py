"""Keep the database in shape while a collector runs: partitions ahead, retention, free space.

Nothing here holds up ingest or ends the collector: what fails is logged, shown in the metrics and
tried again at the next interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from msgtrace.errors import MsgtraceError, NotSupported, Unavailable
from msgtrace.maintenance.retention import RetentionPolicy, RetentionRun, run_retention
from msgtrace.settings.table import Settings
from msgtrace.storage.protocol import Maintenance
from msgtrace.telemetry.metrics import MaintenanceMetrics

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 1.0
"""How long the end of a collector waits for a step that is under way."""

DAYS_AHEAD = 2
"""Partitions that stand ready, beside today's."""


@contextlib.asynccontextmanager
async def maintained(
    maintenance: Maintenance, settings: Settings, metrics: MaintenanceMetrics
) -> AsyncIterator[None]:
    """Do what is to be done at once, and then once an interval, while the block runs."""
    watch = _Watch(maintenance, RetentionPolicy.of(settings), metrics)
    task = asyncio.create_task(
        watch.run_forever(settings.retention_interval_s), name="maintenance-watch"
    )
    try:
        yield
    finally:
        task.cancel()
        _, late = await asyncio.wait({task}, timeout=STOP_TIMEOUT_S)
        for each in late:  # it waits for a database that says nothing; what it did stays right
            each.cancel()


class _Watch:
    def __init__(
        self, maintenance: Maintenance, policy: RetentionPolicy, metrics: MaintenanceMetrics
    ) -> None:
        self._maintenance = maintenance
        self._policy = policy
        self._metrics = metrics
        self._is_over = False
        metrics.set_policy(is_on=policy.is_on, max_bytes=policy.max_bytes)

    async def run_forever(self, interval_s: float) -> None:
        while True:
            try:
                await self._run()
            except Unavailable as error:  # the database is away, which others tell of
                self._metrics.count_failure()
                logger.info("maintenance_put_off", extra={"reason": str(error)})
            except MsgtraceError as error:
                self._metrics.count_failure()
                logger.error("maintenance_failed", extra={"reason": str(error)})
            except Exception as error:
                self._metrics.count_failure()
                logger.error("maintenance_failed", exc_info=error)
            await asyncio.sleep(interval_s)

    async def _run(self) -> None:
        await self._look_after_partitions()
        began_s = time.monotonic()
        run = await run_retention(self._maintenance, self._policy, self._metrics.count_purged)
        self._tell(run, time.monotonic() - began_s)
        # Also where another process did the work: its success is everybody's.
        state = await self._maintenance.get_retention_state()
        self._metrics.set_success(state)

    async def _look_after_partitions(self) -> None:
        made = await self._maintenance.make_partitions(DAYS_AHEAD)
        if made:
            logger.debug("partitions_made", extra={"partitions": ",".join(made)})
        with contextlib.suppress(NotSupported):
            self._metrics.set_partitions(len(await self._maintenance.list_partitions()))

    def _tell(self, run: RetentionRun, took_s: float) -> None:
        if run.purged.spans or run.purged.partitions or run.given_back_bytes:
            logger.info(
                "purged",
                extra={
                    "spans": run.purged.spans,
                    "traces": run.purged.traces,
                    "shortened": run.purged.shortened,
                    "partitions": run.purged.partitions,
                    "given_back_bytes": run.given_back_bytes,
                    "took_s": round(took_s, 3),
                },
            )
        if run.used_bytes is None:
            return
        self._metrics.set_used_bytes(run.used_bytes)
        # Over the limit, and nothing more may be deleted: only an operator can help.
        is_over = run.used_bytes > self._policy.max_bytes and run.was_ours and not run.before_ns
        if is_over and not self._is_over:
            logger.warning(
                "database_over_limit",
                extra={"used_bytes": run.used_bytes, "limit_bytes": self._policy.max_bytes},
            )
        self._is_over = is_over
