"""One batch of a rebuild of summaries, in one transaction of the writer."""

from __future__ import annotations

import sqlite3
import time

from msgtrace.model.batch import TraceKey
from msgtrace.model.prices import PriceTable
from msgtrace.model.span import TenantId, TraceId
from msgtrace.storage.operations import DOUBT_ALL
from msgtrace.storage.rebuild import (
    COUNT_ALL,
    COUNT_OUTDATED,
    FORGET_PLACE,
    GET_PLACE,
    KEEP_PLACE,
    NEXT_OF_ALL,
    NEXT_OUTDATED,
    SPANS_OF,
    Rebuilt,
    resummarize,
    set_summary,
    take_batch,
)
from msgtrace.storage.sqlite.connection import (
    ConnectionThread,
    translated_write_errors,
    write_transaction,
)
from msgtrace.storage.sqlite.operations import DELETE_DOUBTED, tell_operations_of
from msgtrace.storage.sqlite.writer import insert_usage, json_list
from msgtrace.storage.summary import trace_row

_SET_SUMMARY = set_summary()


class SqliteRebuild:
    """See RebuildableStorage."""

    _writer: ConnectionThread

    async def rebuild_batch(
        self, prices: PriceTable, after: TraceKey, *, is_of_all: bool, done: int
    ) -> Rebuilt:
        """See RebuildableStorage."""

        def work(connection: sqlite3.Connection) -> Rebuilt:
            with translated_write_errors(), write_transaction(connection):
                rebuilt = _rebuild(connection, prices, after, is_of_all)
                if is_of_all and rebuilt.last is not None:
                    connection.execute(FORGET_PLACE)
                    place = (time.time_ns(), done + rebuilt.trace_count, *rebuilt.last)
                    connection.execute(KEEP_PLACE, place)
                return rebuilt

        return await self._writer.run(work)

    async def get_rebuild_place(self) -> tuple[TraceKey, int] | None:
        """See RebuildableStorage."""
        row = await self._writer.run(lambda connection: connection.execute(GET_PLACE).fetchone())
        return None if row is None else ((TenantId(row[0]), TraceId(row[1])), row[2])

    async def forget_rebuild_place(self) -> None:
        """See RebuildableStorage."""
        await self._execute(FORGET_PLACE)

    async def doubt_operations(self) -> None:
        """See RebuildableStorage."""
        await self._execute(DOUBT_ALL)

    async def delete_doubted_operations(self) -> None:
        """See RebuildableStorage."""
        await self._execute(DELETE_DOUBTED)

    async def count_for_rebuild(self, *, is_of_all: bool) -> int:
        """See RebuildableStorage."""
        sql = COUNT_ALL if is_of_all else COUNT_OUTDATED
        count: int = await self._writer.run(
            lambda connection: connection.execute(sql).fetchone()[0]
        )
        return count

    async def _execute(self, sql: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            with translated_write_errors(), write_transaction(connection):
                connection.execute(sql)

        await self._writer.run(work)


def _rebuild(
    connection: sqlite3.Connection, prices: PriceTable, after: TraceKey, is_of_all: bool
) -> Rebuilt:
    candidates = connection.execute(NEXT_OF_ALL if is_of_all else NEXT_OUTDATED, after).fetchall()
    keys = take_batch(candidates)
    if not keys:
        return Rebuilt(0, None)
    tenant_id, trace_ids = keys[0][0], [trace_id for _, trace_id in keys]
    if is_of_all:
        tell_operations_of(connection, tenant_id, trace_ids)
    members = f"IN ({', '.join('?' * len(trace_ids))})"
    spans = connection.execute(SPANS_OF.format(members=members), (tenant_id, *trace_ids)).fetchall()
    new = resummarize(spans, prices)
    connection.execute(
        f"DELETE FROM model_usage WHERE tenant_id = ? AND trace_id {members}",  # noqa: S608 - constants only
        (tenant_id, *trace_ids),
    )
    insert_usage(connection, new.usage)
    rows = [trace_row(key, delta, json_list) for key, delta in new.traces.items()]
    connection.executemany(_SET_SUMMARY, [(*row[2:], *row[:2]) for row in rows])
    return Rebuilt(len(keys), keys[-1])
