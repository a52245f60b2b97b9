"""Does an export of a million spans make senders wait longer for their answers?

    python -m benchmarks.export [--spans 1000000] [--requests 600] [--share 0.5] [--rounds 3]

Collector and query service are processes of their own on one database that holds so many spans. A
round offers a share of the capacity that filling the database has shown, over 64 connections at
even intervals: once alone, once while `msgtrace export` runs, which is begun anew until the load
ends. Times count from the moment at which a request was due. Prints p99 with and without, and what
one whole export takes, alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.databases import new_database
from benchmarks.export_requests import SPANS_PER_REQUEST
from benchmarks.figures import Figures
from benchmarks.load import run_load
from benchmarks.processes import cpu_s, free_port, running_collector, sampled_memory, wait_for_port
from msgtrace.model.units import MIB
from tests.postgres_server import postgres_server

CONNECTIONS = 64


def main() -> None:
    """Run it on both databases and print the table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgres"), action="append")
    options = parser.parse_args()
    figures = Figures()
    with (
        postgres_server() as server,
        tempfile.TemporaryDirectory(prefix="msgtrace-export-") as folder,
    ):
        for database in options.database or ("sqlite", "postgres"):
            url = (
                f"sqlite:///{folder}/export.db"
                if database == "sqlite"
                else new_database(server, "bench_export")
            )
            _measure(database, url, options, Path(folder), figures)
    figures.print(
        {
            "offered spans/s": ",.0f",
            "p99 ms alone": ".0f",
            "p99 ms with export": ".0f",
            "ratio": ".2f",
            "export spans/s": ",.0f",
            "query µs a span": ".1f",
            "query MiB": ".0f",
            "MiB": ".0f",
        }
    )


def _measure(
    database: str, url: str, options: argparse.Namespace, folder: Path, figures: Figures
) -> None:
    with running_collector(url) as (_, ports):
        wait_for_port(ports["grpc"])
        filled = run_load("grpc", ports["grpc"], options.spans // SPANS_PER_REQUEST, seed=1)
        rate = options.share * filled["spans"] / filled["seconds"] / SPANS_PER_REQUEST
        with _query_service(url) as (service, address):
            for number in range(options.rounds):
                seed = 1_000 * (number + 1)
                alone = _offer(ports["grpc"], options.requests, seed, rate)
                with _exporting(address, folder / "meanwhile.binpb"):
                    shared = _offer(ports["grpc"], options.requests, seed + 500, rate)
                figures.add(
                    database,
                    **{
                        "offered spans/s": rate * SPANS_PER_REQUEST,
                        "p99 ms alone": alone,
                        "p99 ms with export": shared,
                        "ratio": shared / alone,
                    },
                )
            figures.add(database, **_export_alone(service, address, folder / "whole.binpb"))


def _offer(port: int, requests: int, seed: int, rate: float) -> float:
    """The p99 of the acknowledgements, in ms."""
    result = run_load("grpc", port, requests, seed, rate=rate, connections=CONNECTIONS)
    if result["refused"]:
        raise RuntimeError(f"{result['refused']} requests were refused")
    return result["p99_ms"]


@contextlib.contextmanager
def _query_service(url: str) -> Iterator[tuple[psutil.Process, str]]:
    port = free_port()
    environment = os.environ | {
        "MSGTRACE_DATABASE_URL": url,
        "MSGTRACE_PORT": str(port),
        "MSGTRACE_LOG_LEVEL": "warning",
    }
    child = subprocess.Popen([sys.executable, "-m", "msgtrace", "query"], env=environment)
    try:
        wait_for_port(port)
        yield psutil.Process(child.pid), f"http://127.0.0.1:{port}"
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def _command(address: str, path: Path) -> list[str]:
    program = [sys.executable, "-m", "msgtrace", "export", str(path), "--url", address]
    return [*program, "--overwrite"]


@contextlib.contextmanager
def _exporting(address: str, path: Path) -> Iterator[None]:
    """Exports one after the other while the block runs."""
    ended = threading.Event()
    failed: list[int] = []

    def run() -> None:
        while not ended.is_set() and not failed:
            with subprocess.Popen(
                _command(address, path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as child:
                while child.poll() is None and not ended.wait(0.05):
                    pass
                if child.poll() is None:
                    child.terminate()
                elif child.returncode:
                    failed.append(child.returncode)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(1)  # until it is under way
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failed:
        raise RuntimeError(f"the export ended with {failed[0]}")


def _export_alone(service: psutil.Process, address: str, path: Path) -> dict[str, float]:
    """What a whole export takes while nothing else happens."""
    cpu_before_s, started_at = cpu_s(service), time.perf_counter()
    with sampled_memory(service) as memory_bytes:
        said = subprocess.run(
            [*_command(address, path), "--json"],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ).stdout
    seconds = time.perf_counter() - started_at
    spans = int(said.partition('"spans":')[2].partition(",")[0])
    return {
        "export spans/s": spans / seconds,
        "query µs a span": (cpu_s(service) - cpu_before_s) / spans * 1e6,
        "query MiB": max(memory_bytes) / MIB,
        "MiB": path.stat().st_size / MIB,
    }


if __name__ == "__main__":
    main()
