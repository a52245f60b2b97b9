"""How fast are spans stored durably, beside what the database does with ready-made rows?

    python -m benchmarks.ingest [--requests 400] [--rounds 3] [--databases sqlite,postgres]
        [--wires grpc,http,json] [--workers 1,2]
    python -m benchmarks.ingest --spans 10000000 [--databases postgres]

Requests of 512 spans with ten attributes over 16 connections, from a process of their own. Figures
are medians of the rounds; the ceilings are measured in each round beside the runs they are compared
with, because on a shared machine absolute figures drift and ratios hold.
Also: the time from start to the first accepted span, resident memory at saturation, and the bytes
that a span takes in the database, indexes and summaries included.
With --workers: each of these numbers of collector processes before PostgreSQL; SQLite has one.
With --spans: one run over gRPC from an empty database to so many rows, in tenths (`flatness`).
Each figure that has a goal is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from benchmarks.ceiling import postgres_ceiling, sqlite_ceiling
from benchmarks.export_requests import SPANS_PER_REQUEST, make_requests
from benchmarks.goals import Goal, print_goals
from benchmarks.load import TRACES_PATH, send_one
from benchmarks.processes import cpu_s, postgres_processes, running_collector, wait_for_port
from msgtrace.model.units import MIB
from msgtrace.otlp.encodings import use_decoder
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import migrate_database
from tests.postgres_server import postgres_server, with_database

WIRES = ("grpc", "http", "json")
"""gRPC, and HTTP with protobuf and with JSON."""

LEAST_SHARE = {
    "python": {"sqlite": 0.4, "postgres": 0.4},
    "native": {"sqlite": 0.75, "postgres": 0.85},
}
"""Of the ceiling, over gRPC, by what decodes."""

TENTHS = 10

_TABLE_BYTES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""

MOST_BYTES = {"sqlite": 380, "postgres": 450}
"""A span."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    requests: int
    databases: list[str]
    wires: list[str]
    workers: list[int]
    postgres_url: str
    folder: Path

    def new_url(self, database: str, name: str) -> str:
        """The URL of an empty database."""
        if database == "sqlite":
            return f"sqlite:///{self.folder / name}.db"
        return new_database(self.postgres_url, f"bench_{name}")


class Figures:
    """Samples by row and column, printed as medians."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, row: str, **columns: float) -> None:
        """Add one sample to each column of a row."""
        for column, value in columns.items():
            self._samples[row][column].append(value)

    def has(self, row: str, column: str) -> bool:
        """Whether there is a sample."""
        return column in self._samples[row]

    def median(self, row: str, column: str) -> float:
        """The median of a row's column."""
        return statistics.median(self._samples[row][column])

    def print(self, columns: dict[str, str]) -> None:
        """All rows; `columns` maps a column to its format."""
        print(" | ".join(["case".ljust(34), *(name.rjust(12) for name in columns)]))
        for row in self._samples:
            cells = [
                format(self.median(row, name), spec).rjust(12)
                if name in self._samples[row]
                else " " * 12
                for name, spec in columns.items()
            ]
            print(" | ".join([row.ljust(34), *cells]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all rounds and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--wires", default=",".join(WIRES))
    parser.add_argument("--workers", default="1", help="collectors before PostgreSQL")
    parser.add_argument("--spans", type=int, help="rows of the long form")
    options = parser.parse_args(arguments)
    databases = options.databases.split(",")
    with (
        postgres_server() if "postgres" in databases else contextlib.nullcontext("") as url,
        tempfile.TemporaryDirectory(prefix="msgtrace-bench-") as folder,
    ):
        plan = Plan(
            options.requests,
            databases,
            options.wires.split(","),
            [int(number) for number in options.workers.split(",")],
            url,
            Path(folder),
        )
        if options.spans:
            measure_flatness(plan, options.spans)
        else:
            _run_rounds(plan, options.rounds)


def _run_rounds(plan: Plan, rounds: int) -> None:
    figures = Figures()
    for number in range(rounds):
        _run_round(plan, number, figures)
    figures.print(
        {
            "spans/s": ",.0f",
            "of reference": ".0%",
            "of own table": ".0%",
            "collector µs": ".1f",
            "database µs": ".1f",
            "p50 ms": ".0f",
            "p99 ms": ".0f",
            "start s": ".2f",
            "memory MiB": ".0f",
            "bytes a span": ".0f",
        }
    )
    print(
        "µs: CPU time a span. of reference: jsonb, unique + service index, ready-made binary COPY."
    )
    print_goals(_goals(figures, plan))


def _goals(figures: Figures, plan: Plan) -> Iterator[Goal]:
    decoder = use_decoder(os.environ.get("MSGTRACE_DECODER", "auto"))
    print(f"decoder: {decoder}")
    for database in plan.databases:
        row = f"{database} grpc"
        if figures.has(row, "of reference"):
            share = figures.median(row, "of reference")
            yield Goal(
                f"{row}, of the ceiling", share, ".0%", at_least=LEAST_SHARE[decoder][database]
            )
            size = figures.median(row, "bytes a span")
            yield Goal(f"{row}, bytes a span", size, ".0f", at_most=MOST_BYTES[database])


def _run_round(plan: Plan, number: int, figures: Figures) -> None:
    seed = number * 1000
    if "sqlite" in plan.databases:
        ceiling = sqlite_ceiling(plan.folder / f"ceiling-{number}.db", plan.requests, seed)
        figures.add("sqlite ready-made rows", **{"spans/s": ceiling})
        for wire in plan.wires:
            url = plan.new_url("sqlite", f"{wire}{number}")
            rate = _run_case(f"sqlite {wire}", url, wire, plan, seed, figures)
            share = {"of reference": rate / ceiling, "of own table": rate / ceiling}
            figures.add(f"sqlite {wire}", **share)
    if "postgres" in plan.databases:
        reference = _postgres_ceiling(plan, "reference_spans", f"r{number}", seed)
        own = _postgres_ceiling(plan, "spans", f"o{number}", seed)
        figures.add("postgres ready-made, reference", **{"spans/s": reference})
        figures.add("postgres ready-made, own table", **{"spans/s": own})
        for wire, workers in itertools.product(plan.wires, plan.workers):
            name = f"postgres {wire}" + (f", {workers} workers" if workers > 1 else "")
            url = plan.new_url("postgres", f"{wire}{workers}_{number}")
            rate = _run_case(name, url, wire, plan, seed, figures, workers)
            share = {"of reference": rate / reference, "of own table": rate / own}
            figures.add(name, **share)


def _run_case(
    name: str, url: str, wire: str, plan: Plan, seed: int, figures: Figures, workers: int = 1
) -> float:
    started_at = time.perf_counter()
    with running_collector(url, workers=workers) as (collector, ports):
        wait_for_port(ports["http"])
        assert send_one(ports["http"], make_requests(1, seed + 1)[0])
        start_s = time.perf_counter() - started_at
        servers = postgres_processes(url)
        before = cpu_s(collector), sum(map(cpu_s, servers))
        with sampled_memory(collector) as peak_bytes:
            result = run_load(
                wire, ports["grpc" if wire == "grpc" else "http"], plan.requests, seed + 2
            )
        after = cpu_s(collector), sum(map(cpu_s, servers))
    spans = result["spans"]
    if result["refused"]:
        raise RuntimeError(f"{result['refused']} requests were refused")
    figures.add(
        name,
        **{
            "spans/s": spans / result["seconds"],
            "collector µs": (after[0] - before[0]) / spans * 1e6,
            "database µs": (after[1] - before[1]) / spans * 1e6,
            "p50 ms": result["p50_ms"],
            "p99 ms": result["p99_ms"],
            "start s": start_s,
            "memory MiB": max(peak_bytes) / MIB,
            "bytes a span": database_bytes(url) / (spans + SPANS_PER_REQUEST),
        },
    )
    return spans / result["seconds"]


def measure_flatness(plan: Plan, spans: int) -> None:
    """Fill each database up to so many rows and print the rate of each tenth."""
    requests = spans // SPANS_PER_REQUEST // TENTHS
    for database in plan.databases:
        url = plan.new_url(database, "flat")
        rates = []
        workers = 1 if database == "sqlite" else plan.workers[0]
        with running_collector(url, workers=workers) as (_, ports):
            wait_for_port(ports["grpc"])
            for tenth in range(TENTHS):
                result = run_load("grpc", ports["grpc"], requests, seed=tenth)
                if result["refused"]:
                    raise RuntimeError(f"{result['refused']} requests were refused")
                rates.append(result["spans"] / result["seconds"])
                rows = (tenth + 1) * requests * SPANS_PER_REQUEST
                print(f"{database}: up to {rows:,} rows, {rates[-1]:,.0f} spans/s", flush=True)
        size = database_bytes(url) / (TENTHS * requests * SPANS_PER_REQUEST)
        print_goals(
            [
                Goal(
                    f"{database}, last tenth of first", rates[-1] / rates[0], ".0%", at_least=0.85
                ),
                Goal(f"{database}, bytes a span", size, ".0f", at_most=MOST_BYTES[database]),
            ]
        )


def database_bytes(url: str) -> int:
    """What the database takes on disk; PostgreSQL's without its catalogue."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            pages, page_bytes = connection.execute(
                "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
            return int(pages * page_bytes)

    async def ask() -> int:
        connection = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval(_TABLE_BYTES))
        finally:
            await connection.close()

    return asyncio.run(ask())


def run_load(
    wire: str,
    port: int,
    requests: int,
    seed: int,
    *,
    rate: float = 0.0,
    connections: int = 16,
    path: str = TRACES_PATH,
) -> dict[str, float]:
    """What `benchmarks.load` measures, in a process of its own."""
    arguments = [wire, str(port), "--requests", str(requests), "--seed", str(seed), "--path", path]
    arguments += ["--rate", str(rate), "--connections", str(connections)]
    command = [sys.executable, "-m", "benchmarks.load", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        result: dict[str, float] = json.loads(child.communicate("go\n")[0])
    return result


class sampled_memory:  # noqa: N801 - reads as a block
    """Samples the resident bytes of a process and its children while the block runs.

    Ten times a second; what they share counts for each.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self._bytes: list[int] = []
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._bytes

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        self._bytes.append(self._resident_bytes())
        while not self._ended.wait(0.1):
            self._bytes.append(self._resident_bytes())

    def _resident_bytes(self) -> int:
        processes = [self._process, *self._process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes)


def _postgres_ceiling(plan: Plan, table: str, name: str, seed: int) -> float:
    url = new_database(plan.postgres_url, f"bench_{name}")
    return asyncio.run(postgres_ceiling(url, table, plan.requests, seed))


def new_database(admin_url: str, name: str) -> str:
    """The URL of a migrated, empty database of that name."""

    async def create() -> None:
        connection = await asyncpg.connect(admin_url)
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.execute("CHECKPOINT")
        await connection.close()

    asyncio.run(create())
    url = with_database(admin_url, name)
    asyncio.run(migrate_database(Settings(database_url=url)))
    return url


if __name__ == "__main__":
    main()
