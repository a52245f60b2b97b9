"""Dead letters in SQL that every backend understands.

A backend adds how to run it. SQL here has `?` for each value, as in `storage.reader`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgtrace.model.dead_letter import (
    DeadLetter,
    DeadLetterSummary,
    DeadLetterTotals,
    LetterId,
    Place,
    join_span_ids,
    split_span_ids,
)
from msgtrace.model.span import Row, TenantId
from msgtrace.storage.reader import ReadSql, Statement

WriteSql = Callable[[Statement], Awaitable[int]]
"""Runs one statement in a durable transaction of its own; returns how many rows it changed.

Such transactions take turns, or a limit could be passed by several at once.
"""

# One that is there already stays in its place in the list and needs no more room.
_KEEP = """
INSERT INTO dead_letters (
    tenant_id, letter_id, refused_at_ns, span_count, kept_bytes, encoding, reason, span_ids, payload
)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?
WHERE EXISTS (SELECT 1 FROM dead_letters WHERE tenant_id = ? AND letter_id = ?)
    OR CAST((SELECT coalesce(sum(kept_bytes), 0) FROM dead_letters) AS bigint) + ? <= ?
ON CONFLICT (tenant_id, letter_id) DO UPDATE SET
    span_count = excluded.span_count, kept_bytes = excluded.kept_bytes,
    reason = excluded.reason, span_ids = excluded.span_ids
"""

_DELETE = "DELETE FROM dead_letters WHERE tenant_id = ? AND letter_id = ?"

_LIST = """
SELECT letter_id, tenant_id, refused_at_ns, reason, encoding, span_count, length(payload)
FROM dead_letters WHERE tenant_id = ? {after}
ORDER BY refused_at_ns DESC, letter_id DESC LIMIT ?
"""

_AFTER = "AND (refused_at_ns, letter_id) < (?, ?)"

_GET = """
SELECT tenant_id, refused_at_ns, reason, encoding, payload, span_ids
FROM dead_letters WHERE tenant_id = ? AND letter_id = ?
"""

_TOTALS = "SELECT count(*), CAST(coalesce(sum(kept_bytes), 0) AS bigint) FROM dead_letters"


class SqlDeadLetters:
    """A DeadLetterStore over `read` and `write`.

    `read_now` is for sums: it waits neither for other reads nor for a server that says nothing.
    """

    def __init__(self, read: ReadSql, write: WriteSql, read_now: ReadSql) -> None:
        self._read = read
        self._write = write
        self._read_now = read_now

    async def keep(self, letter: DeadLetter, *, max_bytes: int) -> bool:
        """See DeadLetterStore."""
        key: Row = (letter.tenant_id, letter.letter_id)
        values = (
            *key,
            letter.refused_at_ns,
            len(letter.spans),
            letter.kept_bytes,
            letter.encoding,
            letter.reason,
            join_span_ids(letter.spans),
            letter.payload,
            *key,
            letter.kept_bytes,
            max_bytes,
        )
        return await self._write((_KEEP, values)) == 1

    async def list(
        self, tenant_id: TenantId, *, limit: int, after: Place | None = None
    ) -> Sequence[DeadLetterSummary]:
        """See DeadLetterStore."""
        sql = _LIST.format(after=_AFTER if after else "")
        [rows] = await self._read([(sql, (tenant_id, *(after or ()), limit))])
        return [_summary(row) for row in rows]

    async def get(self, tenant_id: TenantId, letter_id: LetterId) -> DeadLetter | None:
        """See DeadLetterStore."""
        [rows] = await self._read([(_GET, (tenant_id, letter_id))])
        return _letter(rows[0]) if rows else None

    async def delete(self, tenant_id: TenantId, letter_id: LetterId) -> bool:
        """See DeadLetterStore."""
        return await self._write((_DELETE, (tenant_id, letter_id))) == 1

    async def sum(self) -> DeadLetterTotals:
        """See DeadLetterStore."""
        [[(letter_count, kept_bytes)]] = await self._read_now([(_TOTALS, ())])
        return DeadLetterTotals(letter_count=letter_count, kept_bytes=kept_bytes)


def _summary(row: Row) -> DeadLetterSummary:
    letter_id, tenant_id, refused_at_ns, reason, encoding, span_count, payload_bytes = row
    return DeadLetterSummary(
        letter_id=letter_id,
        tenant_id=tenant_id,
        refused_at_ns=refused_at_ns,
        reason=reason,
        encoding=encoding,
        span_count=span_count,
        payload_bytes=payload_bytes,
    )


def _letter(row: Row) -> DeadLetter:
    tenant_id, refused_at_ns, reason, encoding, payload, span_ids = row
    return DeadLetter(
        tenant_id=tenant_id,
        refused_at_ns=refused_at_ns,
        reason=reason,
        encoding=encoding,
        payload=payload,
        spans=split_span_ids(span_ids),
    )
