"""What the settings want deleted, and one run of deleting it.

Path: collector, cli → [maintenance.retention] → storage. A span is expired when it starts before
the edge of its database (`Maintenance.edge_of`): on PostgreSQL that is a midnight, so it is kept
up to a day longer than the settings say. Of all processes on a database one purges at a time;
where their settings differ, each applies its own, so the shortest holds.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgtrace.model.maintenance import Purged
from msgtrace.model.units import NS_PER_S
from msgtrace.settings.table import Settings
from msgtrace.storage.protocol import Maintenance, Purger

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long and how much is kept. max_age_s: None for ever. max_bytes: 0 for any number."""

    max_age_s: float | None = None
    max_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> RetentionPolicy:
        """The policy that the settings describe."""
        return cls(max_age_s=settings.retention_s, max_bytes=settings.max_database_bytes)

    @property
    def is_on(self) -> bool:
        """Whether anything is ever deleted."""
        return self.max_age_s is not None or self.max_bytes > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRun:
    """What a run did. used_bytes: before it, None if nobody asked.

    was_ours: whether this process was the one to purge. given_back_bytes: to the file system.
    """

    purged: Purged
    was_ours: bool
    before_ns: int = 0
    used_bytes: int | None = None
    given_back_bytes: int = 0


async def run_retention(
    maintenance: Maintenance,
    policy: RetentionPolicy,
    on_step: Callable[[Purged], None] = lambda _: None,
) -> RetentionRun:
    """Delete what is expired, give free space back, and record the success.

    Without a policy only free space is given back. Raises StorageUnavailable; what was purged until
    then stays so.
    """
    now_ns = time.time_ns()
    before_ns, used_bytes = await _find_edge(maintenance, policy, now_ns)
    async with maintenance.purging() as purger:
        if purger is None:
            return RetentionRun(purged=Purged(), was_ours=False, used_bytes=used_bytes)
        purged = await purge_all(purger, before_ns, on_step) if before_ns else Purged()
        given_back_bytes = await purger.give_back_space()
        if policy.is_on:
            await purger.record(purged, before_ns=before_ns, now_ns=now_ns)
    return RetentionRun(
        purged=purged,
        was_ours=True,
        before_ns=before_ns,
        used_bytes=used_bytes,
        given_back_bytes=given_back_bytes,
    )


async def purge_all(
    purger: Purger, before_ns: int, on_step: Callable[[Purged], None] = lambda _: None
) -> Purged:
    """Purge up to `before_ns`; `on_step` hears of each step."""
    purged = Purged()
    async with contextlib.aclosing(purger.purge(before_ns)) as steps:
        async for step in steps:
            purged += step
            on_step(step)
    return purged


async def _find_edge(
    maintenance: Maintenance, policy: RetentionPolicy, now_ns: int
) -> tuple[int, int | None]:
    """Before which time everything is to go, 0 for nothing, and how many bytes are used."""
    edges = [0]
    if policy.max_age_s is not None:
        edges.append(maintenance.edge_of(now_ns - round(policy.max_age_s * NS_PER_S)))
    if not policy.max_bytes:
        return max(edges), None
    verdict = await maintenance.judge_size(policy.max_bytes, now_ns)
    if verdict.edge_ns is not None:
        edges.append(verdict.edge_ns)
    return max(edges), verdict.used_bytes
