"""Which operations there are: a row for each service, name and kind of spans, with its last day.

Two lists are read from it: services, and the operations of one. Writers keep it, within the
transaction of a flush. Nearly always there is nothing to write, because a writer remembers what it
has told the database; for REMEMBERED_S, so that a row which somebody takes away meanwhile, as a
purge does, is back with one of the next spans.
A purge deletes the rows whose last day it has purged. Whoever deletes traces leaves them, as long
as there are other traces.
The table has bounds: whatever names are sent, it takes no row beyond them, and the doctor tells.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from msgtrace.model.batch import SeenOperation, SpanBatch
from msgtrace.model.maintenance import Finding, ok, problem, warning
from msgtrace.model.span import TRACE_ID_BYTES, Row, TenantId
from msgtrace.model.text import MAX_LABEL_CHARS, unescape_text
from msgtrace.model.units import NS_PER_DAY
from msgtrace.storage.reader import ReadSql

ServiceKey = tuple[TenantId, str]

OPERATION_COLUMNS = ("tenant_id", "service_name", "name", "kind", "last_day")

MAX_OF_SERVICE = 2_000
MAX_OF_TENANT = 50_000
"""How many rows there may be. Writers that do not see each other's may take a few more."""

REMEMBERED_S = 10.0
_MAX_REMEMBERED = 50_000

ON_KNOWN_OPERATION = """
ON CONFLICT (tenant_id, service_name, name, kind) DO UPDATE SET last_day = excluded.last_day
WHERE operations.last_day < excluded.last_day
"""

COUNT_BY_SERVICE = "SELECT tenant_id, service_name, count(*) FROM operations GROUP BY 1, 2"

# Which rows go. A rebuild doubts every row and then tells again what the spans say; what is still
# in doubt at its end no span says.
IS_BEFORE = "last_day < ?"
IS_DOUBTED = "last_day = -1"
# Along the index of the list: rows of deleted traces may still lie at the head of the table.
HAS_NO_TRACES = """
tenant_id = ? AND (SELECT max(start_time_ns) FROM traces WHERE tenant_id = ?) IS NULL
"""

DOUBT_ALL = "UPDATE operations SET last_day = -1"

OPERATIONS_OF = f"""
SELECT tenant_id, service_name, substr(name, 1, {MAX_LABEL_CHARS}), kind,
    max(start_time_ns / {NS_PER_DAY})
FROM spans WHERE tenant_id = ? AND trace_id {{members}} GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - built from constants

_SAMPLED_TRACES = 100
_SAMPLED_SPANS = 1_000
"""How many traces the doctor looks at, and the size of a trace that it leaves out."""

_UNLISTED = f"""
SELECT DISTINCT seen.service_name FROM (
    SELECT s.tenant_id, s.service_name, substr(s.name, 1, {MAX_LABEL_CHARS}) AS name, s.kind
    FROM (
        SELECT tenant_id, trace_id FROM traces
        WHERE (tenant_id, trace_id) >= (0, ?) AND span_count <= {_SAMPLED_SPANS}
        ORDER BY tenant_id, trace_id LIMIT {_SAMPLED_TRACES}
    ) AS sample
    JOIN spans s ON s.tenant_id = sample.tenant_id AND s.trace_id = sample.trace_id
) AS seen
WHERE NOT EXISTS (
    SELECT 1 FROM operations o WHERE o.tenant_id = seen.tenant_id
        AND o.service_name = seen.service_name AND o.name = seen.name AND o.kind = seen.kind
)
"""  # noqa: S608 - built from constants


class ToldOperations:
    """What a writer has told the database of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: set[SeenOperation] = set()
        self._full: set[ServiceKey] = set()
        self._forgets_at_s = 0.0

    def untold(self, batches: Iterable[SpanBatch]) -> list[SeenOperation]:
        """What the batches say anew: each operation once, with its last day, in order of keys.

        In that order, so that two writers wait for each other in one direction only. Nothing of
        services without room: their spans may have ever new names.
        """
        if self._clock() >= self._forgets_at_s:
            self._forget()
            self._forgets_at_s = self._clock() + REMEMBERED_S
        untold: set[SeenOperation] = set()
        for batch in batches:
            untold |= batch.operations - self._told
        if self._full:
            untold = {each for each in untold if each[:2] not in self._full}
        return last_days(untold)

    def remember(self, told: Sequence[SeenOperation], full: Collection[ServiceKey]) -> None:
        """What was told and committed, and the services that had no room for all of it."""
        if len(self._told) + len(self._full) + len(told) > _MAX_REMEMBERED:
            self._forget()
        self._told.update(told)
        self._full.update(full)

    def _forget(self) -> None:
        self._told.clear()
        self._full.clear()


def last_days(seen: Iterable[SeenOperation]) -> list[SeenOperation]:
    """Each operation once, with the last of its days, in order of keys."""
    by_key = {each[:4]: each for each in sorted(seen)}
    return list(by_key.values())


def within_bounds(
    new: Iterable[SeenOperation], counts: Iterable[Row]
) -> tuple[list[SeenOperation], set[ServiceKey]]:
    """As many of these rows as may be inserted, and the services of the others.

    counts: rows of COUNT_BY_SERVICE.
    """
    of_service: Counter[ServiceKey] = Counter()
    of_tenant: Counter[TenantId] = Counter()
    for tenant_id, service_name, count in counts:
        of_service[tenant_id, service_name] = count
        of_tenant[tenant_id] += count
    taken, full = [], set()
    for row in new:
        service = row[:2]
        if of_service[service] < MAX_OF_SERVICE and of_tenant[row[0]] < MAX_OF_TENANT:
            of_service[service] += 1
            of_tenant[row[0]] += 1
            taken.append(row)
        else:
            full.add(service)
    return taken, full


async def examine_operations(read: ReadSql) -> Finding:
    """What the doctor says of the table."""
    start = random.randbytes(TRACE_ID_BYTES)  # noqa: S311 - a sample, no secret
    # From the least trace, too, so that a small database is looked at as a whole.
    *sampled, counts = await read(
        [
            (_UNLISTED, (bytes(TRACE_ID_BYTES),)),
            (_UNLISTED, (start,)),
            (COUNT_BY_SERVICE, ()),
        ]
    )
    full = sorted(name for _, name, count in counts if count >= MAX_OF_SERVICE)
    total = sum(count for *_, count in counts)
    if full or total >= MAX_OF_TENANT:
        what = ", ".join(map(unescape_text, full[:3])) or "all services together"
        return warning(
            "operations",
            f"more are not listed of {what}: there are {MAX_OF_SERVICE:,} of a service, or"
            f" {MAX_OF_TENANT:,} in all",
            "names of spans should not hold ids: put these into attributes; then wait for"
            " retention, or `msgtrace-admin rebuild-summaries --all`",
        )
    unlisted = sorted({unescape_text(name) for rows in sampled for (name,) in rows})
    if unlisted:
        return problem(
            "operations",
            f"spans of {', '.join(unlisted[:3])} are called what no list of operations says",
            "`msgtrace-admin rebuild-summaries --all`",
        )
    return ok("operations", f"{total:,} are listed, of {len(counts):,} services")
