"""How fast does another store take the same requests, beside ours in the same rounds?

    python -m benchmarks.peer NAME --port 4317 [--wire grpc] [--path /v1/traces] [--pid PID]

Start the other store first. Requests of 512 spans with ten attributes over 16 connections go to it
and to our collector on both databases, each as fast as the answers come, in turns: on a shared
machine absolute figures drift and ratios hold. An answer of ours comes after the commit; what the
other's says is for the reader to know. CPU is that of the other's process from the first request
until it rests, as it may go on after its last answer; ours includes the database.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.databases import new_url
from benchmarks.figures import Figures
from benchmarks.ingest import WIRES
from benchmarks.load import TRACES_PATH, run_load
from benchmarks.processes import cpu_s, postgres_processes, running_collector, wait_for_port
from tests.postgres_server import postgres_server

REST_S = 1.0
REST_SHARE = 0.1
"""A process rests when it has taken less of a core than this share for REST_S."""

MOST_REST_S = 60.0


@dataclass(frozen=True)
class Load:
    """The same requests for each store."""

    wire: str
    requests: int
    seed: int
    path: str = TRACES_PATH


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="what the row of the other store is called")
    parser.add_argument("--port", type=int, required=True, help="where it takes OTLP")
    parser.add_argument("--wire", choices=WIRES, default="grpc")
    parser.add_argument("--path", default=TRACES_PATH, help="where it takes them over HTTP")
    parser.add_argument("--pid", type=int, help="its process, children included, for CPU time")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    process = psutil.Process(options.pid) if options.pid else None
    figures = Figures()
    with (
        postgres_server() as admin_url,
        tempfile.TemporaryDirectory(prefix="msgtrace-peer-") as folder,
    ):
        for number in range(options.rounds):
            load = Load(options.wire, options.requests, number * 1000)
            theirs = replace(load, path=options.path)
            _measure(options.name, options.port, [process] if process else [], theirs, figures)
            for database in ("sqlite", "postgres"):
                name = f"peer_{number}"
                url = new_url(database, name, folder=Path(folder), admin_url=admin_url)
                _measure_ours(f"msgtrace, {database}", url, load, figures)
    figures.print(
        {"spans/s": ",.0f", "CPU µs": ".1f", "p50 ms": ".0f", "p99 ms": ".0f", "refused": ".0f"}
    )


def _measure_ours(row: str, url: str, load: Load, figures: Figures) -> None:
    with running_collector(url) as (collector, ports):
        port = ports["grpc" if load.wire == "grpc" else "http"]
        wait_for_port(port)
        _measure(row, port, [collector, *postgres_processes(url)], load, figures)


def _measure(
    row: str,
    port: int,
    processes: Sequence[psutil.Process],
    load: Load,
    figures: Figures,
) -> None:
    before_s = sum(map(cpu_s, processes))
    result = run_load(load.wire, port, load.requests, load.seed, path=load.path)
    _wait_for_rest(processes)
    spans = result["spans"]
    figures.add(
        row,
        **{
            "spans/s": spans / result["seconds"],
            "p50 ms": result["p50_ms"],
            "p99 ms": result["p99_ms"],
            "refused": result["refused"],
        },
    )
    if processes and spans:
        took_s = sum(map(cpu_s, processes)) - before_s
        figures.add(row, **{"CPU µs": took_s / spans * 1e6})


def _wait_for_rest(processes: Sequence[psutil.Process]) -> None:
    ends_at = time.monotonic() + MOST_REST_S
    took_s = float("inf")
    while took_s > REST_SHARE * REST_S and time.monotonic() < ends_at:
        before_s = sum(map(cpu_s, processes))
        time.sleep(REST_S)
        took_s = sum(map(cpu_s, processes)) - before_s


if __name__ == "__main__":
    main()
