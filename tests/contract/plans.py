"""What a database does for the statements of a reader: which indexes it goes along."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec

from msgtrace.model.span import Row
from msgtrace.storage.attribute_filters import lets_in
from msgtrace.storage.postgres.reader import DIALECT as POSTGRES
from msgtrace.storage.postgres.reader import numbered
from msgtrace.storage.reader import SqlReader, Statement
from msgtrace.storage.sqlite.connection import LETS_IN
from msgtrace.storage.sqlite.reader import DIALECT as SQLITE

_EMPTY = "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) = 0"

_OF_PARTITION = re.compile(r"spans_(\d{8}|default)_")
_PARENTS = {
    "tenant_id_trace_id_span_id_start_time_ns_idx": "spans_identity",
}
_SQLITE_INDEX = re.compile(r"USING (?:COVERING )?(?:INDEX )?(PRIMARY KEY|\w+)")
_SQLITE_SCAN = re.compile(r"SCAN (\w+)(?! USING)")


@dataclass
class Plan:
    """indexes: those that are gone along. scans: tables that are read as a whole."""

    indexes: set[str] = field(default_factory=set)
    scans: set[str] = field(default_factory=set)


class Explainer:
    """A reader whose statements also leave their plans."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.empty: set[str] = set()
        self.reader: SqlReader

    def take(self) -> list[Plan]:
        """The plans since the last call, one for each statement."""
        plans, self.plans = self.plans, []
        return plans


@asynccontextmanager
async def explaining(url: str, *, analyze: bool = True) -> AsyncIterator[Explainer]:
    """A reader of the database, which is analyzed first; PostgreSQL does that by itself anyway."""
    opened = _postgres(url) if url.startswith("postgres") else _sqlite(url, analyze)
    async with opened as explainer:
        yield explainer


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[Explainer]:
    connection = await asyncpg.connect(url)
    explainer = Explainer()

    async def read(statements: Sequence[Statement]) -> list[list[Row]]:
        rows = []
        for sql, values in statements:
            text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {numbered(sql)}", *values)
            plan = _postgres_plan(json.loads(text)[0]["Plan"], explainer.empty)
            explainer.plans.append(plan)
            rows.append([tuple(row) for row in await connection.fetch(numbered(sql), *values)])
        return rows

    try:
        await connection.execute("VACUUM (ANALYZE)")
        explainer.empty = {row[0] for row in await connection.fetch(_EMPTY)}
        explainer.reader = SqlReader(read, POSTGRES, list)
        yield explainer
    finally:
        await connection.close()


def _postgres_plan(root: dict[str, Any], empty: set[str]) -> Plan:
    plan = Plan()
    for node in _nodes(root):
        if name := node.get("Index Name"):
            plan.indexes.add(_PARENTS.get(_OF_PARTITION.sub("", name), name))
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] not in empty:
            plan.scans.add(re.sub(r"_(\d{8}|default)$", "", node["Relation Name"]))
    return plan


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


@asynccontextmanager
async def _sqlite(url: str, analyze: bool) -> AsyncIterator[Explainer]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    explainer = Explainer()

    async def read(statements: Sequence[Statement]) -> list[list[Row]]:
        for sql, values in statements:
            steps = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            text = "\n".join(step[3] for step in steps)
            plan = Plan(set(_SQLITE_INDEX.findall(text)), set(_SQLITE_SCAN.findall(text)))
            explainer.plans.append(plan)
        return [connection.execute(sql, values).fetchall() for sql, values in statements]

    try:
        if analyze:
            connection.execute("ANALYZE")
        connection.create_function(LETS_IN, 3, lets_in)
        explainer.reader = SqlReader(read, SQLITE, msgspec.json.decode)
        yield explainer
    finally:
        connection.close()
