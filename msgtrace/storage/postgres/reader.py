"""How PostgreSQL reads: its dialect, and a snapshot for each read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import count

from msgtrace.model.span import Row
from msgtrace.model.trace import SpanPlace
from msgtrace.storage.postgres.connection import Connection, PlainConnection, Pool
from msgtrace.storage.postgres.errors import translated_errors
from msgtrace.storage.reader import Statement
from msgtrace.storage.search import Condition, Dialect, needle

_ATTRIBUTE = """strpos({0}.attributes::text, ?) > 0 AND CASE json_typeof({0}.attributes -> ?)
    WHEN 'string' THEN {0}.attributes ->> ? = ?
    WHEN 'boolean' THEN {0}.attributes ->> ? = ?
    WHEN 'number' THEN ({0}.attributes ->> ?)::double precision = ?::double precision
    WHEN 'object' THEN
        coalesce({0}.attributes -> ? ->> '$int', {0}.attributes -> ? ->> '$double') = ?
    ELSE false
END"""


def _attribute(table: str, key: str, value: str, number: float | None) -> Condition:
    values = (needle(key, value), key, key, value, key, value, key, number, key, key, value)
    return _ATTRIBUTE.format(table), values


# The word of the filter that the place chooses has every bit.
_LETS_IN = """(
    SELECT ('x' || encode(
        substr(f.filter, (probe.place % (octet_length(f.filter) / 8) * 8 + 1)::integer, 8), 'hex'
    ))::bit(64)::bigint & probe.bits = probe.bits
    FROM (SELECT ?::bigint AS place, ?::bigint AS bits) AS probe
)"""

# The OFFSET keeps other conditions outside: it costs more to fetch what the GIN index says of all
# times than to look at the hundred traces of a stretch.
_STRETCH = """(
    SELECT * FROM traces t WHERE t.tenant_id = ? AND t.start_time_ns BETWEEN ? AND ?
    ORDER BY t.start_time_ns DESC, t.trace_id DESC OFFSET 0
) AS t"""

_STRETCHES = """(
    SELECT near.* FROM unnest(?::bigint[], ?::bigint[]) AS f (first_ns, last_ns)
    CROSS JOIN LATERAL (
        SELECT * FROM traces
        WHERE tenant_id = ? AND start_time_ns BETWEEN f.first_ns AND f.last_ns OFFSET 0
    ) AS near OFFSET 0
) AS t"""


# From one span to the next along the index: knowing when the trace was, PostgreSQL would look
# through all of it for each chunk, or through all spans of that time.
_SPANS_AT = """unnest(?::bytea[], ?::bigint[]) AS place (span_id, start_time_ns)
CROSS JOIN LATERAL (
    SELECT * FROM spans
    WHERE tenant_id = ? AND trace_id = ? AND span_id = place.span_id
        AND start_time_ns = place.start_time_ns OFFSET 0
) AS s"""


def _spans_at(tenant_id: int, trace_id: bytes, places: Sequence[SpanPlace]) -> Condition:
    ids = [place.span_id for place in places]
    starts_ns = [place.start_time_ns for place in places]
    return _SPANS_AT, (ids, starts_ns, tenant_id, trace_id)


def _stretches(tenant_id: int, stretches: Sequence[tuple[int, int]]) -> Condition:
    firsts_ns, lasts_ns = zip(*stretches, strict=True)
    return _STRETCHES, (list(firsts_ns), list(lasts_ns), tenant_id)


# percentile_disc is the nearest rank: the first value that so many of all do not exceed.
_STATS = """
SELECT total, with_errors, spans, errors, input_tokens, output_tokens, cost,
    cached_tokens, reasoning_tokens, estimated_cost,
    ranks[1], ranks[2], ranks[3]
FROM (
    SELECT count(*) AS total, count(*) FILTER (WHERE t.error_count > 0) AS with_errors,
        sum(t.span_count) AS spans, sum(t.error_count) AS errors,
        sum(t.input_tokens) AS input_tokens, sum(t.output_tokens) AS output_tokens,
        sum(t.cost) AS cost, sum(t.cached_tokens) AS cached_tokens,
        sum(t.reasoning_tokens) AS reasoning_tokens, sum(t.estimated_cost) AS estimated_cost,
        percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY t.duration_ns) AS ranks
    FROM traces t WHERE {where}
) AS sums
"""

DIALECT = Dialect(
    indexed=frozenset(
        (
            "service_name",
            "name",
            "session_id",
            "user_id",
            "model",
            "has_errors",
            "start_ns",
            "end_ns",
        )
    ),
    unordered=frozenset(("service_name", "name", "model")),
    stats=_STATS,
    service_name=lambda label: ("t.services @> ARRAY[?::text]", (label,)),
    model=lambda label: ("t.models @> ARRAY[?::text]", (label,)),
    tool=lambda label: ("t.tools @> ARRAY[?::text]", (label,)),
    term=lambda term: ("t.terms @> ARRAY[?::bigint]", (term,)),
    attribute=_attribute,
    lets_in=_LETS_IN,
    stretches=_stretches,
    spans_at=_spans_at,
    stretch=lambda *stretch: (_STRETCH, stretch),
    text="(s.name ILIKE ? OR s.status_message ILIKE ? OR s.attributes::text ILIKE ?)",
)


class SnapshotReader:
    """Runs reads over a pool, each in a read-only snapshot of its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """See ReadSql. Raises QueryTimeout."""
        with translated_errors():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await fetch_each(connection, statements)


async def fetch_each(
    connection: Connection | PlainConnection, statements: Sequence[Statement]
) -> list[list[Row]]:
    """The rows of each statement."""
    return [
        [tuple(row) for row in await connection.fetch(numbered(sql), *values)]
        for sql, values in statements
    ]


@lru_cache(maxsize=256)
def numbered(sql: str) -> str:
    """The statement with $1, $2, … for its `?`."""
    numbers = count(1)
    first, *rest = sql.split("?")
    return first + "".join(f"${next(numbers)}{part}" for part in rest)
