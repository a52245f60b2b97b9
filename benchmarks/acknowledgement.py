"""How long does a sender wait for its answer when the collector is busy but not saturated?

    python -m benchmarks.acknowledgement [--requests 300] [--rounds 3] [--share 0.7]

Requests of 512 spans with ten attributes. Each round first measures the capacity (16 connections,
as fast as answers come), then offers the given share of it over 64 connections at even intervals.
Times count from the moment at which a request was due, so that a stall is seen by all who wait.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.databases import new_database
from benchmarks.export_requests import SPANS_PER_REQUEST
from benchmarks.figures import Figures
from benchmarks.load import run_load
from benchmarks.processes import running_collector, wait_for_port
from tests.postgres_server import postgres_server

WIRES = ("grpc", "http")


def main() -> None:
    """Run all rounds and print the table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.7)
    options = parser.parse_args()
    figures = Figures()
    with postgres_server() as server, tempfile.TemporaryDirectory(prefix="msgtrace-ack-") as folder:
        for number in range(options.rounds):
            for wire in WIRES:
                name = f"ack_{wire}{number}"
                databases = {
                    "sqlite": f"sqlite:///{Path(folder) / name}.db",
                    "postgres": new_database(server, name),
                }
                for database, url in databases.items():
                    _measure(f"{database} {wire}", url, wire, options, number * 1000, figures)
    figures.print({"capacity spans/s": ",.0f", "offered": ",.0f", "p50 ms": ".0f", "p99 ms": ".0f"})


def _measure(
    row: str, url: str, wire: str, options: argparse.Namespace, seed: int, figures: Figures
) -> None:
    with running_collector(url) as (_, ports):
        port = ports["grpc" if wire == "grpc" else "http"]
        wait_for_port(port)
        run_load(wire, port, 16, seed)
        free = run_load(wire, port, options.requests, seed + 1)
        rate = options.share * options.requests / free["seconds"]
        paced = run_load(wire, port, options.requests, seed + 2, rate=rate, connections=64)
    if free["refused"] or paced["refused"]:
        raise RuntimeError(f"{row}: requests were refused")
    figures.add(
        row,
        **{
            "capacity spans/s": free["spans"] / free["seconds"],
            "offered": rate * SPANS_PER_REQUEST,
            "p50 ms": paced["p50_ms"],
            "p99 ms": paced["p99_ms"],
        },
    )


if __name__ == "__main__":
    main()
