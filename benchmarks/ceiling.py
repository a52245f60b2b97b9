"""What the databases do with ready-made rows: the most that any collector could reach.

PostgreSQL takes binary COPY over two connections, SQLite inserts from one thread; the rows are
prepared outside the clock. Two tables on PostgreSQL: our own `spans`, and the reference that goals
refer to: jsonb attributes, unique (trace_id, span_id, start), btree (service, start).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path

import asyncpg

from benchmarks.export_requests import make_requests
from msgtrace.model.span import SPAN_COLUMNS, Row
from msgtrace.otlp.decode import decode_export_request
from msgtrace.storage.sqlite.connection import open_writer
from msgtrace.storage.sqlite.schema import apply_pending

FLUSH_REQUESTS = 16
"""Requests a transaction: what a saturated collector writes at once."""

_REFERENCE = """
CREATE TABLE reference_spans (
    start_time_ns bigint NOT NULL, end_time_ns bigint NOT NULL,
    resource_id bigint NOT NULL, scope_id bigint NOT NULL,
    flags bigint, dropped_attributes_count bigint,
    dropped_events_count bigint, dropped_links_count bigint,
    tenant_id integer NOT NULL, kind integer NOT NULL, status_code integer NOT NULL,
    trace_id bytea NOT NULL, span_id bytea NOT NULL, parent_span_id bytea,
    service_name text NOT NULL, name text NOT NULL, status_message text, trace_state text,
    attributes jsonb, events jsonb, links jsonb
);
CREATE UNIQUE INDEX ON reference_spans (trace_id, span_id, start_time_ns);
CREATE INDEX ON reference_spans (service_name, start_time_ns);
"""


async def postgres_ceiling(url: str, table: str, requests: int, seed: int) -> float:
    """Stored spans/s of binary COPY into `table`, which is "spans" or "reference_spans"."""
    connections = [await asyncpg.connect(url) for _ in range(2)]
    try:
        if table == "reference_spans":
            await connections[0].execute(f"DROP TABLE IF EXISTS {table}")
            await connections[0].execute(_REFERENCE)
        flushes = _flushes(requests, seed)
        payloads = [await _copy_payload(connections[0], table, rows) for rows in flushes]
        halves = payloads[::2], payloads[1::2]
        started_at = time.perf_counter()
        await asyncio.gather(
            *(_copy_all(*each, table) for each in zip(connections, halves, strict=True))
        )
        return sum(map(len, flushes)) / (time.perf_counter() - started_at)
    finally:
        for connection in connections:
            await connection.close()


def sqlite_ceiling(path: Path, requests: int, seed: int) -> float:
    """Stored spans/s of durable inserts of ready-made rows into our own table."""
    connection = open_writer(path)
    apply_pending(connection)
    flushes = _flushes(requests, seed)
    columns, marks = ", ".join(SPAN_COLUMNS), ", ".join("?" * len(SPAN_COLUMNS))
    insert = f"INSERT INTO spans ({columns}) VALUES ({marks})"
    started_at = time.perf_counter()
    for rows in flushes:
        _insert(connection, insert, rows)
    spans_per_s = sum(map(len, flushes)) / (time.perf_counter() - started_at)
    connection.close()
    return spans_per_s


def _insert(connection: sqlite3.Connection, insert: str, rows: list[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(insert, rows)
    connection.execute("COMMIT")


def _flushes(requests: int, seed: int) -> list[list[Row]]:
    batches = [decode_export_request(body).spans for body in make_requests(requests, seed)]
    starts = range(0, len(batches), FLUSH_REQUESTS)
    return [list(chain(*batches[start : start + FLUSH_REQUESTS])) for start in starts]


async def _copy_payload(
    connection: asyncpg.Connection[asyncpg.Record], table: str, rows: list[Row]
) -> bytes:
    """The rows as the bytes of a binary COPY, made by PostgreSQL itself."""
    payload = bytearray()

    async def collect(data: bytes) -> None:
        payload.extend(data)

    async with connection.transaction():
        await connection.execute(f"CREATE TEMPORARY TABLE ready (LIKE {table}) ON COMMIT DROP")
        await connection.copy_records_to_table("ready", records=rows, columns=SPAN_COLUMNS)
        await connection.copy_from_table(
            "ready", output=collect, columns=SPAN_COLUMNS, format="binary"
        )
    return bytes(payload)


async def _copy_all(
    connection: asyncpg.Connection[asyncpg.Record], payloads: list[bytes], table: str
) -> None:
    for payload in payloads:
        await connection.copy_to_table(
            table, source=_chunks(payload), columns=SPAN_COLUMNS, format="binary"
        )


async def _chunks(payload: bytes) -> AsyncIterator[bytes]:
    yield payload
