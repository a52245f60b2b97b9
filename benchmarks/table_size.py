"""What would a span take on disk in a table of another design, and what would that cost?

    python -m benchmarks.table_size [--requests 400] [--databases sqlite,postgres]

Spans of the benchmark are written to the table of the migrations, then from there to a table of
each design, in the order in which they came and in transactions of the same size. Bytes are those
of the file or relation, for each span; summaries of traces are not in them.
write µs: CPU time a span. scan µs: to look for a text in the attributes of all spans, a span.
trace µs: to read a trace of 16 spans by its id, one of many. Everything is in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import asyncpg
import psutil

from benchmarks.ceiling import FLUSH_REQUESTS
from benchmarks.databases import new_database
from benchmarks.export_requests import SPANS_PER_REQUEST, Renewed
from benchmarks.table_designs import POSTGRES, SQLITE, Design
from msgtrace.model.span import SPAN_COLUMNS, Row
from msgtrace.otlp.decode import decode_export_request
from msgtrace.storage.sqlite.connection import open_connection
from msgtrace.storage.sqlite.schema import apply_pending
from tests.postgres_server import postgres_server

SPANS_PER_FLUSH = FLUSH_REQUESTS * SPANS_PER_REQUEST
TRACES_READ = 300
READS = 10
"""Of each trace: the clock of a process's CPU time ticks a hundred times a second."""

TEMPLATES = 50
"""Requests that are made from nothing."""


@dataclass(frozen=True)
class Cost:
    """Bytes and CPU microseconds; see the module."""

    row_bytes: float
    index_bytes: list[float]
    write_us: float
    scan_us: float
    trace_us: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all designs and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--databases", default="sqlite,postgres")
    options = parser.parse_args(arguments)
    for database in options.databases.split(","):
        print(f"{database:<36} | total | rows | indexes         | write µs | scan µs | trace µs")
        measure = {"sqlite": measure_sqlite, "postgres": measure_postgres}[database]
        for design, cost in measure(options.requests):
            _print(design, cost)


def _print(design: Design, cost: Cost) -> None:
    total = cost.row_bytes + sum(cost.index_bytes)
    indexes = " + ".join(f"{size:.0f}" for size in cost.index_bytes)
    print(
        f"{design.name:<36} | {total:5.0f} | {cost.row_bytes:4.0f} | {indexes:<15} |"
        f" {cost.write_us:8.1f} | {cost.scan_us:7.2f} | {cost.trace_us:8.0f}",
        flush=True,
    )


def _flushes(requests: int) -> Iterator[list[Row]]:
    renewed = Renewed(min(requests, TEMPLATES), seed=1)
    for start in range(0, requests, FLUSH_REQUESTS):
        bodies = renewed.take(min(FLUSH_REQUESTS, requests - start))
        yield list(chain.from_iterable(decode_export_request(body).spans for body in bodies))


def measure_postgres(requests: int) -> Iterator[tuple[Design, Cost]]:
    """Each design on a server of its own process group."""
    with postgres_server() as admin_url:
        url = new_database(admin_url, "bench_size")
        loop = asyncio.new_event_loop()
        try:
            connection = loop.run_until_complete(asyncpg.connect(url))
            loop.run_until_complete(_fill(connection, requests))
            for design in POSTGRES:
                try:
                    cost = loop.run_until_complete(_measure_on_postgres(connection, design))
                except asyncpg.FeatureNotSupportedError as error:
                    print(f"{design.name:<36} | not on this server: {error.args[0]}")
                else:
                    yield design, cost
            loop.run_until_complete(connection.close())
        finally:
            loop.close()


async def _fill(connection: asyncpg.Connection[asyncpg.Record], requests: int) -> None:
    await connection.execute(
        "CREATE TABLE source (LIKE spans); ALTER TABLE source ADD number serial"
    )
    for rows in _flushes(requests):
        await connection.copy_records_to_table("source", records=rows, columns=SPAN_COLUMNS)
    await connection.execute("CREATE INDEX ON source (number)")
    await connection.execute("VACUUM ANALYZE source")


async def _measure_on_postgres(
    connection: asyncpg.Connection[asyncpg.Record], design: Design
) -> Cost:
    server = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
    await connection.execute("DROP TABLE IF EXISTS design; CREATE TABLE design (LIKE spans)")
    for change in design.changes:
        await connection.execute(change)
    for kind, definition in design.indexes:
        await connection.execute(f"CREATE {kind} INDEX ON design {definition}")
    spans = await connection.fetchval("SELECT max(number) FROM source")
    began_s = _cpu_s(server)
    for first in range(1, spans + 1, SPANS_PER_FLUSH):
        await connection.execute(
            f"INSERT INTO design ({', '.join(SPAN_COLUMNS)}) SELECT {design.selected} FROM source"
            f" WHERE number BETWEEN {first} AND {first + SPANS_PER_FLUSH - 1} ORDER BY number"
        )
    written_s = _cpu_s(server)
    if design.after:
        await connection.execute(design.after)
    await connection.execute("VACUUM ANALYZE design")
    scan_s = _cpu_s(server)
    await connection.execute("SELECT count(*) FROM design WHERE attributes::text LIKE '%no such%'")
    scanned_s = _cpu_s(server)
    ids = await connection.fetch(f"SELECT DISTINCT trace_id FROM source LIMIT {TRACES_READ}")
    question = await connection.prepare(
        "SELECT * FROM design WHERE tenant_id = 0 AND trace_id = $1"
    )
    read_s = _cpu_s(server)
    for [trace_id] in ids * READS:
        await question.fetch(trace_id)
    ended_s = _cpu_s(server)
    sizes = await connection.fetch(
        "SELECT pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'design'::regclass"
        " ORDER BY indexrelid"
    )
    row_bytes = await connection.fetchval("SELECT pg_table_size('design')")
    return Cost(
        row_bytes / spans,
        [size / spans for [size] in sizes],
        (written_s - began_s) / spans * 1e6,
        (scanned_s - scan_s) / spans * 1e6,
        (ended_s - read_s) / len(ids) / READS * 1e6,
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure_sqlite(requests: int) -> Iterator[tuple[Design, Cost]]:
    """Each design in a file of its own."""
    with tempfile.TemporaryDirectory(prefix="msgtrace-size-") as folder:
        source = Path(folder) / "source.db"
        with contextlib.closing(open_connection(source)) as connection:
            apply_pending(connection)
            marks = ", ".join("?" * len(SPAN_COLUMNS))
            for rows in _flushes(requests):
                connection.execute("BEGIN")
                connection.executemany(
                    f"INSERT INTO spans ({', '.join(SPAN_COLUMNS)}) VALUES ({marks})",
                    rows,
                )
                connection.execute("COMMIT")
        for number, design in enumerate(SQLITE):
            yield design, _measure_on_sqlite(source, Path(folder) / f"{number}.db", design)


def _measure_on_sqlite(source: Path, path: Path, design: Design) -> Cost:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {design.page_bytes}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("ATTACH ? AS source", (str(source),))
        _create_on_sqlite(connection, design)
        [spans] = connection.execute("SELECT max(rowid) FROM source.spans").fetchone()
        began_s = time.process_time()
        for first in range(1, spans + 1, SPANS_PER_FLUSH):
            connection.execute(
                f"INSERT INTO design SELECT {design.selected} FROM source.spans"
                f" WHERE rowid BETWEEN {first} AND {first + SPANS_PER_FLUSH - 1} ORDER BY rowid"
            )
        write_s = time.process_time() - began_s
        if design.after:
            connection.execute(design.after)
        scan_s = _reading_s(
            connection, "SELECT count(*) FROM design WHERE instr(attributes, ?)", [("no such",)]
        )
        ids = connection.execute(
            "SELECT DISTINCT trace_id FROM source.spans LIMIT ?", (TRACES_READ,)
        ).fetchall()
        trace_s = _reading_s(
            connection, f"SELECT * FROM design WHERE {design.of_trace}", ids * READS
        )
        sizes = dict(
            connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall()
        )
        return Cost(
            sizes["design"] / spans,
            [size / spans for name, size in sizes.items() if name.startswith("index_")],
            write_s / spans * 1e6,
            scan_s / spans * 1e6,
            trace_s / len(ids) / READS * 1e6,
        )


def _create_on_sqlite(connection: sqlite3.Connection, design: Design) -> None:
    [definition] = connection.execute(
        "SELECT sql FROM source.sqlite_schema WHERE name = 'spans'"
    ).fetchone()
    definition = definition.replace("TABLE spans", "TABLE design")
    if "numbers" in design.selected:
        definition = definition.replace("trace_id BLOB", "trace_id INTEGER")
    if design.key:
        body, _, _ = definition.rpartition(")")
        definition = f"{body}, PRIMARY KEY {design.key}) WITHOUT ROWID"
    connection.execute(definition)
    for number, (kind, columns) in enumerate(design.indexes):
        connection.execute(f"CREATE {kind} INDEX index_{number} ON design {columns}")
    if "numbers" in design.selected:
        connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, trace BLOB UNIQUE)")
        connection.execute(
            "INSERT INTO numbers (trace) SELECT trace_id FROM source.spans"
            " GROUP BY trace_id ORDER BY min(rowid)"
        )


def _reading_s(connection: sqlite3.Connection, sql: str, values: Sequence[Row]) -> float:
    began_s = time.process_time()
    for each in values:
        connection.execute(sql, each).fetchall()
    return time.process_time() - began_s


if __name__ == "__main__":
    main()
