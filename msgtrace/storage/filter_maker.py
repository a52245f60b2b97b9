"""Make the filters of attributes (`storage.attribute_filters`) behind the writers.

A stretch is claimed first; then all writes that began before are waited for; then its spans are
read, and the filter is stored unless a trigger has taken the claim away meanwhile. So no write is
overlooked: either its spans were read, or it saw the claim.
Nothing here is needed for a right answer, and nothing is lost when it ends half-way: a claim that
nobody fulfils may be claimed again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgtrace.model.span import Row, TenantId
from msgtrace.model.units import MAX_INT64, NS_PER_S
from msgtrace.storage.attribute_filters import LETS_ALL_IN, make_filter, pairs_of
from msgtrace.storage.filtered_walk import Stretch
from msgtrace.storage.span_stream import filled_up

if TYPE_CHECKING:
    from msgtrace.storage.reader import ReadSql, Statement  # through which the backends import this

SETTLED_AFTER_NS = 10 * NS_PER_S
"""So long after its start a trace is expected to be there; one that comes later is no harm."""

QUIET_AFTER_NS = 300 * NS_PER_S
"""So long after its start a trace is expected to be over: a filter that was lost is made again."""

STRETCH_SPANS = 1_500
STRETCH_TRACES = 128
MAX_STRETCH_SPANS = 20_000
"""More are not read for a filter, which would hold them all in memory."""

STRETCHES_AT_ONCE = 16
CLAIM_LASTS_NS = 600 * NS_PER_S

WriteEach = Callable[[Sequence["Statement"]], Awaitable[list[int]]]
"""Runs statements in one transaction; returns how many rows each has changed."""

_TENANTS = "SELECT tenant_id FROM tenants ORDER BY tenant_id"

_OPEN = "SELECT max(first_ns) FROM attribute_filters WHERE tenant_id = ?"

_OLDEST_TRACE = "SELECT min(start_time_ns) FROM traces WHERE tenant_id = ?"

_TRACES = """
SELECT t.start_time_ns, t.span_count FROM traces t
WHERE t.tenant_id = ? AND t.start_time_ns BETWEEN ? AND ? ORDER BY t.start_time_ns LIMIT ?
"""

_MISSING = """
SELECT first_ns, last_ns FROM attribute_filters
WHERE tenant_id = ? AND filter IS NULL AND last_ns < ?
    AND (claimed_at_ns IS NULL OR claimed_at_ns < ?)
ORDER BY first_ns LIMIT ?
"""

_FORGET = "DELETE FROM attribute_filters WHERE tenant_id = ? AND last_ns < ?"

_BEGIN = """
INSERT INTO attribute_filters (tenant_id, first_ns, last_ns) VALUES (?, ?, ?)
ON CONFLICT DO NOTHING
"""

_SHORTEN = """
UPDATE attribute_filters SET last_ns = ?, claimed_at_ns = ?
WHERE tenant_id = ? AND first_ns = ? AND last_ns = ?
"""

_ADD = """
INSERT INTO attribute_filters (tenant_id, first_ns, last_ns, claimed_at_ns) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

_CLAIM = """
UPDATE attribute_filters SET claimed_at_ns = ?
WHERE tenant_id = ? AND first_ns = ? AND last_ns = ? AND filter IS NULL
    AND (claimed_at_ns IS NULL OR claimed_at_ns < ?)
"""

_COUNT = """
SELECT coalesce(sum(t.span_count), 0), coalesce(max(t.end_time_ns), 0) FROM traces t
WHERE t.tenant_id = ? AND t.start_time_ns BETWEEN ? AND ?
"""

_ATTRIBUTES = """
SELECT s.resource_id, s.attributes FROM traces t
JOIN spans s ON s.tenant_id = t.tenant_id AND s.trace_id = t.trace_id
    AND s.start_time_ns BETWEEN t.start_time_ns AND t.end_time_ns
WHERE t.tenant_id = ? AND t.start_time_ns BETWEEN ? AND ?
    AND s.start_time_ns BETWEEN ? AND ?
"""

_RESOURCES_AT_ONCE = 64

_RESOURCES = f"""
SELECT resource_id, attributes FROM resources
WHERE tenant_id = ? AND resource_id IN ({", ".join("?" * _RESOURCES_AT_ONCE)})
"""  # noqa: S608 - built from constants

_STORE = """
UPDATE attribute_filters SET filter = ?, claimed_at_ns = NULL
WHERE tenant_id = ? AND first_ns = ? AND last_ns = ? AND claimed_at_ns = ?
"""


class FilterMaker:
    """Makes some filters.

    writes_ended: waits until all writes that are under way have ended; False if that takes too
    long.
    """

    def __init__(
        self, read: ReadSql, write_each: WriteEach, writes_ended: Callable[[], Awaitable[bool]]
    ) -> None:
        self._read = read
        self._write_each = write_each
        self._writes_ended = writes_ended
        self._now_ns = time.time_ns()
        self._resources: dict[tuple[TenantId, int], str] = {}

    async def make(self) -> int:
        """See StorageAdmin.make_attribute_filters."""
        made = 0
        [tenants] = await self._read([(_TENANTS, ())])
        for (tenant_id,) in tenants:
            made += await self._make_of(tenant_id)
        return made

    async def _make_of(self, tenant_id: TenantId) -> int:
        claimed = await self._claim_new(tenant_id) + await self._claim_missing(tenant_id)
        if not claimed or not await self._writes_ended():
            return 0
        stored = 0
        for stretch in claimed:
            if not await self._split(tenant_id, stretch):
                made = await self._filter_of(tenant_id, stretch)
                values = (made, tenant_id, *stretch, self._now_ns)
                stored += sum(await self._write_each([(_STORE, values)]))
        return stored

    async def _split(self, tenant_id: TenantId, stretch: Stretch) -> bool:
        """Cut a stretch into which many traces came late; its parts are claimed another time."""
        values = (tenant_id, *stretch, STRETCH_TRACES * STRETCHES_AT_ONCE)
        [traces] = await self._read([(_TRACES, values)])
        if len(traces) < 2 or sum(row[1] for row in traces) <= MAX_STRETCH_SPANS:
            return False
        parts = [each for each in _cut(traces, stretch.first_ns) if each.last_ns < stretch.last_ns]
        if not parts:
            return False
        parts.append(Stretch(parts[-1].last_ns + 1, stretch.last_ns))
        first, *others = parts
        shorten = (first.last_ns, None, tenant_id, *stretch)
        await self._write_each(
            [(_SHORTEN, shorten), *((_ADD, (tenant_id, *each, None)) for each in others)]
        )
        return True

    async def _claim_new(self, tenant_id: TenantId) -> list[Stretch]:
        """Cut stretches from the open end."""
        [[(open_ns,)], [(oldest_ns,)]] = await self._read(
            [(_OPEN, (tenant_id,)), (_OLDEST_TRACE, (tenant_id,))]
        )
        if oldest_ns is None:
            return []
        if open_ns is None:
            await self._write_each([(_BEGIN, (tenant_id, oldest_ns, MAX_INT64))])
            return []
        settled_ns = self._now_ns - SETTLED_AFTER_NS
        values = (tenant_id, open_ns, settled_ns, STRETCH_TRACES * STRETCHES_AT_ONCE)
        [traces] = await self._read([(_TRACES, values)])
        stretches = _cut(traces, open_ns)[:STRETCHES_AT_ONCE]
        if not stretches:
            return []
        first, *others = [*stretches, Stretch(stretches[-1].last_ns + 1, MAX_INT64)]
        await self._write_each([(_FORGET, (tenant_id, min(oldest_ns, open_ns)))])
        shorten = (first.last_ns, self._now_ns, tenant_id, first.first_ns, MAX_INT64)
        adds = [
            (_ADD, (tenant_id, *each, None if each.last_ns == MAX_INT64 else self._now_ns))
            for each in others
        ]
        [shortened, *_] = await self._write_each([(_SHORTEN, shorten), *adds])
        return stretches if shortened else []

    async def _claim_missing(self, tenant_id: TenantId) -> list[Stretch]:
        """Those that lost their filter, and those whose claim nobody fulfilled."""
        expired_ns = self._now_ns - CLAIM_LASTS_NS
        values = (tenant_id, self._now_ns - QUIET_AFTER_NS, expired_ns, STRETCHES_AT_ONCE)
        [rows] = await self._read([(_MISSING, values)])
        stretches = [Stretch(*row) for row in rows]
        if not stretches:
            return []
        claims = [(_CLAIM, (self._now_ns, tenant_id, *each, expired_ns)) for each in stretches]
        changed = await self._write_each(claims)
        return [each for each, is_ours in zip(stretches, changed, strict=True) if is_ours]

    async def _filter_of(self, tenant_id: TenantId, stretch: Stretch) -> bytes:
        [[(spans, end_ns)]] = await self._read([(_COUNT, (tenant_id, *stretch))])
        if spans > MAX_STRETCH_SPANS:
            return LETS_ALL_IN
        values = (tenant_id, *stretch, stretch.first_ns, end_ns)
        [rows] = await self._read([(_ATTRIBUTES, values)])
        resources = {(tenant_id, row[0]) for row in rows}
        await self._learn(tenant_id, [each for _, each in resources - self._resources.keys()])
        texts = [row[1] for row in rows if row[1] is not None]
        texts += [self._resources[each] for each in resources & self._resources.keys()]
        # In a thread, because the event loop has senders to answer.
        return await asyncio.to_thread(_filter_of_texts, texts)

    async def _learn(self, tenant_id: TenantId, unknown: Sequence[int]) -> None:
        """Read the attributes of resources; neighbouring stretches share most of them."""
        for start in range(0, len(unknown), _RESOURCES_AT_ONCE):
            some = unknown[start : start + _RESOURCES_AT_ONCE]
            values = (tenant_id, *filled_up(some, _RESOURCES_AT_ONCE))
            [found] = await self._read([(_RESOURCES, values)])
            self._resources.update(((tenant_id, row[0]), row[1]) for row in found)


def _filter_of_texts(texts: Sequence[str]) -> bytes:
    return make_filter(pairs_of(texts))


def _cut(traces: Sequence[Row], first_ns: int) -> list[Stretch]:
    """Stretches of enough spans or traces; what is left over at the end waits for more."""
    stretches: list[Stretch] = []
    spans = count = 0
    for start_ns, span_count in traces:
        spans, count = spans + span_count, count + 1
        if (spans >= STRETCH_SPANS or count >= STRETCH_TRACES) and start_ns >= first_ns:
            stretches.append(Stretch(first_ns, start_ns))
            first_ns, spans, count = start_ns + 1, 0, 0
    return stretches
