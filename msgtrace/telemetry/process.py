"""What one process shows of itself: a registry of metrics and an eye on its database.

The composition root makes one of these over its storage and hands it to whatever it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from msgtrace.telemetry.health import DatabaseProbe
from msgtrace.telemetry.metrics import DatabaseMetrics, create_registry


class ObservedDatabase(Protocol):
    """What is looked at of a storage; see `storage.protocol.StorageAdmin`."""

    @property
    def backend(self) -> str: ...  # noqa: D102 - explained there
    async def check(self) -> None: ...  # noqa: D102
    def count_connections(self) -> Mapping[str, tuple[int, int]]: ...  # noqa: D102


class ProcessTelemetry:
    """`registry` holds the metrics of the process, `probe` asks its database."""

    def __init__(self, database: ObservedDatabase) -> None:
        self.registry = create_registry(database.backend)
        metrics = DatabaseMetrics(self.registry)
        self.probe = DatabaseProbe(database.check, metrics)
        for pool in database.count_connections():
            metrics.watch_pool(
                pool, partial(_open, database, pool), partial(_in_use, database, pool)
            )


def _open(database: ObservedDatabase, pool: str) -> int:
    return database.count_connections()[pool][0]


def _in_use(database: ObservedDatabase, pool: str) -> int:
    return database.count_connections()[pool][1]
