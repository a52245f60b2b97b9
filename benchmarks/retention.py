"""What does deleting old spans cost those who send new ones?

    python -m benchmarks.retention [--rounds 3] [--postgres-spans 1000000] [--sqlite-spans 500000]

Each database is filled with spans of ten days ago: one day, so one partition of PostgreSQL. Then a
collector takes requests of 512 spans at an even rate, once without retention and once while it
deletes all of the old spans. Times count from the moment at which a request was due; those with
retention are of the requests that were due while it was deleting. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.databases import new_database
from benchmarks.export_requests import SPANS_PER_REQUEST, make_requests
from benchmarks.figures import Figures
from benchmarks.processes import running_collector, wait_for_port
from msgtrace.model.batch import SpanBatch, operations_of, summarize
from msgtrace.model.units import NS_PER_DAY
from msgtrace.otlp.decode import decode_export_request
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.postgres_server import execute_each, postgres_server, with_database

AGE_DAYS = 10
RETENTION = "7d"
SUCCESS = "msgtrace_retention_last_success_timestamp_seconds"
PURGED = "msgtrace_purged_spans_total"

WARM_UP_S = 3.0
"""How long the load runs before the purge may begin."""

LONGEST_PURGE_S = 600.0

_PATTERNS = 40
"""Requests that are made; those beyond are the same with other trace ids."""

_FLUSH_REQUESTS = 16


def main() -> None:
    """Run all rounds and print the table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres-spans", type=int, default=1_000_000)
    parser.add_argument("--sqlite-spans", type=int, default=500_000)
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=45.0, help="how long each load lasts")
    options = parser.parse_args()
    figures = Figures()
    with (
        postgres_server() as server,
        tempfile.TemporaryDirectory(prefix="msgtrace-retention-") as name,
    ):
        folder = Path(name)
        if options.sqlite_spans:
            _run_sqlite(folder, options, figures)
        if options.postgres_spans:
            _run_postgres(server, options, figures)
    figures.print(
        {
            "requests": ",.0f",
            "p50 ms": ".0f",
            "p99 ms": ".0f",
            "longest ms": ".0f",
            "seconds": ".1f",
            "spans/s": ",.0f",
        }
    )
    print("seconds, spans/s: of the purge.")


def _run_sqlite(folder: Path, options: argparse.Namespace, figures: Figures) -> None:
    filled = folder / "filled.db"
    asyncio.run(_fill(f"sqlite:///{filled}", options.sqlite_spans))
    for number in range(options.rounds):
        for retention in ("off", RETENTION):
            path = folder / f"{number}-{retention}.db"
            shutil.copyfile(filled, path)
            _measure("sqlite", f"sqlite:///{path}", retention, number, options, figures)
            for each in folder.glob(f"{path.name}*"):
                each.unlink()


def _run_postgres(server: str, options: argparse.Namespace, figures: Figures) -> None:
    filled = new_database(server, "retention_filled")
    asyncio.run(_fill(filled, options.postgres_spans))
    execute_each(filled, "VACUUM ANALYZE", "CHECKPOINT")
    for number in range(options.rounds):
        for retention in ("off", RETENTION):
            name = f"retention_{number}_{retention}"
            execute_each(server, f"CREATE DATABASE {name} TEMPLATE retention_filled", "CHECKPOINT")
            url = with_database(server, name)
            _measure("postgres", url, retention, number, options, figures)
            execute_each(server, f"DROP DATABASE {name} WITH (FORCE)")


def _measure(
    database: str,
    url: str,
    retention: str,
    seed: int,
    options: argparse.Namespace,
    figures: Figures,
) -> None:
    os.environ["MSGTRACE_RETENTION"] = retention
    os.environ["MSGTRACE_RETENTION_INTERVAL_S"] = "0.5"
    with contextlib.ExitStack() as held:
        # As long as the benchmark has the right to purge, the collector waits for it.
        release = held.enter_context(_purges_held_up(url))
        _, ports = held.enter_context(running_collector(url))
        wait_for_port(ports["http"])
        with _running_load(ports["http"], seed, options) as load:
            time.sleep(WARM_UP_S)
            release()
            began_s = time.time()
            window = (began_s, began_s + options.seconds)
            if retention != "off":
                window = _wait_for_purge(ports["http"], began_s)
            assert load.stdout is not None
            result = json.loads(load.stdout.readline())
        purged = _metrics(ports["http"])[PURGED]
    if result["refused"]:
        raise RuntimeError(f"{database}: {result['refused']} requests were refused")
    row = f"{database}, {'no retention' if retention == 'off' else 'while it deletes'}"
    _add(figures, row, result["samples"], window)
    if retention != "off":
        took_s = window[1] - window[0]
        figures.add(row, seconds=took_s, **{"spans/s": purged / took_s})


def _add(
    figures: Figures, row: str, samples: list[list[float]], window: tuple[float, float]
) -> None:
    took_ms = sorted(took * 1e3 for due, took in samples if window[0] <= due <= window[1])
    if not took_ms:
        raise RuntimeError(f"{row}: the load ended before the purge began")
    figures.add(
        row,
        **{
            "p50 ms": took_ms[len(took_ms) // 2],
            "p99 ms": took_ms[len(took_ms) * 99 // 100],
            "longest ms": took_ms[-1],
            "requests": len(took_ms),
        },
    )


@contextlib.contextmanager
def _purges_held_up(url: str) -> Iterator[Callable[[], None]]:
    """Be the one who may purge, until what this yields is called."""
    is_held, is_over = threading.Event(), threading.Event()

    async def hold() -> None:
        async with (
            open_storage(Settings(database_url=url)) as storage,
            storage.maintenance.purging() as purger,
        ):
            assert purger is not None
            is_held.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    is_held.wait()

    def release() -> None:
        is_over.set()
        thread.join()

    try:
        yield release
    finally:
        release()


@contextlib.contextmanager
def _running_load(
    port: int, seed: int, options: argparse.Namespace
) -> Iterator[subprocess.Popen[str]]:
    """A load at an even rate that has just begun; it prints one line at its end."""
    requests = round(options.rate * (options.seconds + WARM_UP_S))
    command = [sys.executable, "-m", "benchmarks.load", "http", str(port), "--samples"]
    command += ["--requests", str(requests), "--rate", str(options.rate)]
    command += ["--seed", str(seed + 2), "--connections", "32"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        assert load.stdout.readline() == "ready\n"
        load.stdin.write("go\n")
        load.stdin.flush()
        yield load


def _wait_for_purge(port: int, began_s: float) -> tuple[float, float]:
    """When the purge began and ended, in Unix seconds."""
    first_s = 0.0
    while time.time() < began_s + LONGEST_PURGE_S:
        shown = _metrics(port)
        first_s = first_s or (time.time() if shown[PURGED] else 0.0)
        if first_s and shown[SUCCESS] > began_s:
            return first_s, time.time()
        time.sleep(0.1)
    raise RuntimeError(f"the purge has not ended within {LONGEST_PURGE_S:g} s")


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        text = response.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


async def _fill(url: str, spans: int) -> None:
    """Store so many spans of AGE_DAYS ago."""
    patterns = [decode_export_request(body) for body in make_requests(_PATTERNS, seed=1)]
    count = -(-spans // SPANS_PER_REQUEST)
    async with open_storage(Settings(database_url=url)) as storage:
        for first in range(0, count, _FLUSH_REQUESTS):
            numbers = range(first, min(first + _FLUSH_REQUESTS, count))
            await storage.write_spans([_aged(patterns[n % _PATTERNS], n) for n in numbers])


def _aged(pattern: SpanBatch, number: int) -> SpanBatch:
    """The same spans in other traces, AGE_DAYS ago."""
    back_ns = AGE_DAYS * NS_PER_DAY
    prefix = number.to_bytes(4, "big")
    rows = [
        (row[0], prefix + row[1][4:], *row[2:4], row[4] - back_ns, row[5] - back_ns, *row[6:])
        for row in pattern.spans
    ]
    return SpanBatch(
        spans=rows,
        resources=pattern.resources,
        scopes=pattern.scopes,
        traces=summarize(rows, {}),
        operations=operations_of(rows),
        body_bytes=pattern.body_bytes,
    )


if __name__ == "__main__":
    main()
