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
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ceiling import postgres_ceiling, sqlite_ceiling
from benchmarks.databases import database_bytes, new_database, new_url
from benchmarks.export_requests import SPANS_PER_REQUEST, make_requests
from benchmarks.figures import Figures
from benchmarks.goals import Goal, print_goals
from benchmarks.load import run_load, send_one
from benchmarks.processes import (
    cpu_s,
    postgres_processes,
    running_collector,
    sampled_memory,
    wait_for_port,
)
from msgtrace.model.units import MIB
from msgtrace.otlp.encodings import use_decoder
from tests.postgres_server import postgres_server

WIRES = ("grpc", "http", "json")
"""gRPC, and HTTP with protobuf and with JSON."""

LEAST_SHARE = {
    "python": {"sqlite": 0.4, "postgres": 0.4},
    "native": {"sqlite": 0.75, "postgres": 0.85},
}
"""Of the ceiling, over gRPC, by what decodes."""

TENTHS = 10

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
        return new_url(database, name, folder=self.folder, admin_url=self.postgres_url)


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


def _postgres_ceiling(plan: Plan, table: str, name: str, seed: int) -> float:
    url = new_database(plan.postgres_url, f"bench_{name}")
    return asyncio.run(postgres_ceiling(url, table, plan.requests, seed))


if __name__ == "__main__":
    main()
