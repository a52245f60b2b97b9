"""Every query of docs/sql.md runs on the databases that it is for, and finds what is stored."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg

from msgtrace.model.span import TraceId
from msgtrace.otlp.decode import decode_export_request
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.batches import NOON_NS, make_batch, span, trace_id_of
from tests.end_to_end.captured import CAPTURED, read

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
TRACE = TraceId(bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"))

EXAMPLES = re.findall(r"<!-- (\w+) -->\n```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
SECTIONS = re.findall(r"^## (\d+)\. ", PAGE.read_text(), re.MULTILINE)


def queries_for(backend: str) -> list[str]:
    return [sql for given, sql in EXAMPLES if given in (backend, "both")]


async def stocked(settings: Settings) -> None:
    """What real programs sent, and what no fixture has: a call between services, a session."""
    call = span("call", trace_id=TRACE, kind=3, attributes={"http.request.method": "GET"})
    failed = span(
        "serve", trace_id=TRACE, parent="call", kind=2, status_code=2, start_ns=NOON_NS + 1
    )
    chat = span(
        "chat",
        trace_id=trace_id_of("chat"),
        start_ns=NOON_NS,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "large",
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 5,
            "session.id": "s",
        },
    )
    async with open_storage(settings) as storage:
        for name in CAPTURED:
            await storage.write_spans([decode_export_request(read(name)[1].SerializeToString())])
        await storage.write_spans([make_batch(call, chat), make_batch(failed, service="stock")])


async def rows_of(url: str, sql: str) -> list[dict[str, Any]]:
    if not url.startswith("sqlite"):
        connection = await asyncpg.connect(url)
        try:
            return [dict(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
        file.row_factory = sqlite3.Row
        return [dict(row) for row in file.execute(sql)]


def test_there_are_ten_and_each_is_for_both_databases() -> None:
    assert [int(number) for number in SECTIONS] == list(range(1, 11))
    assert len(queries_for("sqlite")) == len(queries_for("postgres")) == 11
    assert PAGE.read_text().count("```sql") == len(EXAMPLES)


async def test_every_query_finds_what_is_stored(settings: Settings) -> None:
    await stocked(settings)
    backend = "sqlite" if settings.database_url.startswith("sqlite") else "postgres"

    found = [await rows_of(settings.database_url, sql) for sql in queries_for(backend)]

    assert [number for number, rows in enumerate(found) if not rows] == []
    newest, by_view, by_table, *_, calls, exceptions, models, sessions = found
    assert len(newest) == 20
    assert [row["name"] for row in by_view] == [row["name"] for row in by_table]
    assert {row["name"] for row in by_view} == {"call", "serve"}
    assert {"caller": "shop", "callee": "stock", "calls": 1} in calls
    assert "KeyError" in {row["exception"] for row in exceptions}
    [large] = [row for row in models if row["model"] == "large"]
    assert (large["input_tokens"], large["output_tokens"]) == (7, 5)
    assert {"s": 12}.items() <= {row["session_id"]: row["tokens"] for row in sessions}.items()
