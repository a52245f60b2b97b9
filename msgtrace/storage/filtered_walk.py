"""Find the traces of a page from the newest back, past all stretches that cannot hold any.

Path: storage.reader → [storage.filtered_walk] → database. Takes as long as the page's traces are
far apart in the filters of attributes (`storage.attribute_filters`), not in the table.
Each step is a read of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from msgtrace.model.search import TraceSearch
from msgtrace.model.span import Row, TenantId
from msgtrace.model.units import MAX_INT64
from msgtrace.storage.attribute_filters import probes_of

if TYPE_CHECKING:
    from msgtrace.storage.reader import ReadSql, Statement  # which makes use of this module


_FIRST_STRETCHES = 8
_MAX_STRETCHES = 256
_GROWTH = 4

_STRETCHES = """
SELECT f.first_ns, f.last_ns FROM attribute_filters f
WHERE f.tenant_id = ? AND f.first_ns <= ? AND f.last_ns >= ? AND (f.filter IS NULL OR ({}))
ORDER BY f.first_ns DESC LIMIT ?
"""

_BEGINNING = "SELECT min(first_ns) FROM attribute_filters WHERE tenant_id = ?"


class Stretch(NamedTuple):
    """From and to when traces start, both inclusive."""

    first_ns: int
    last_ns: int


PageStatement = Callable[[Sequence[Stretch], int], "Statement"]
"""The statement for so many matching traces of some stretches, newest first.

Of several stretches none holds many traces; a single one may hold all that there are.
"""


class FilteredWalk:
    """One search's way back through time."""

    def __init__(
        self, read: ReadSql, lets_in: str, tenant_id: TenantId, search: TraceSearch
    ) -> None:
        self._read = read
        self._tenant_id = tenant_id
        self._first_ns = search.filter.start_ns or 0
        self._last_ns = _last_ns(search)
        probes = [probes_of(key, value) for key, value in search.filter.attributes]
        condition = " AND ".join(f"({' OR '.join([lets_in] * len(each))})" for each in probes)
        self._sql = _STRETCHES.format(condition)
        self._probes = [value for each in probes for probe in each for value in probe]

    async def take(self, count: int, statement: PageStatement) -> list[Row]:
        """The first `count` rows."""
        rows: list[Row] = []
        size = _FIRST_STRETCHES
        is_over = self._first_ns > self._last_ns
        while not is_over and len(rows) < count:
            groups, is_over = await self._next_groups(size)
            for group in groups:
                if len(rows) < count:
                    [found] = await self._read([statement(group, count - len(rows))])
                    rows += found
            size = min(size * _GROWTH, _MAX_STRETCHES)
        return rows

    async def _next_groups(self, size: int) -> tuple[list[list[Stretch]], bool]:
        """The next stretches that may hold a match, and whether there are no more.

        The open one at the end and what is before the first one may be long and stand alone.
        """
        values = (self._tenant_id, self._last_ns, self._first_ns, *self._probes, size)
        found, [(beginning_ns,)] = await self._read(
            [(self._sql, values), (_BEGINNING, (self._tenant_id,))]
        )
        stretches = [Stretch(*row) for row in found]
        alone = stretches[:1] if stretches and stretches[0].last_ns == MAX_INT64 else []
        groups = [group for group in (alone, stretches[len(alone) :]) if group]
        if len(found) == size and found[-1][0] > self._first_ns:
            self._last_ns = found[-1][0] - 1
            return groups, False
        # Nothing is known of what is before the first filter.
        before_ns = self._last_ns if beginning_ns is None else min(beginning_ns - 1, self._last_ns)
        if before_ns >= self._first_ns:
            groups.append([Stretch(self._first_ns, before_ns)])
        return groups, True


def within_stretch(search: TraceSearch, stretch: Stretch) -> TraceSearch:
    """The search of what starts in the stretch."""
    wanted = search.filter
    ends_ns = [] if wanted.end_ns is None else [wanted.end_ns]
    if stretch.last_ns < MAX_INT64:
        ends_ns.append(stretch.last_ns + 1)
    start_ns = max(stretch.first_ns, wanted.start_ns or 0)
    return replace(
        search, filter=replace(wanted, start_ns=start_ns, end_ns=min(ends_ns, default=None))
    )


def _last_ns(search: TraceSearch) -> int:
    bounds = [MAX_INT64]
    if search.after is not None:
        bounds.append(search.after.start_time_ns)
    if search.filter.end_ns is not None:
        bounds.append(search.filter.end_ns - 1)
    return min(bounds)
