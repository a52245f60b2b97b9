"""How long do questions take over millions of spans, beside their goals?

    python -m benchmarks.query --data FOLDER [--database postgres] [--spans 10000000]
        [--beside-ingest]

Builds the data once and keeps it in FOLDER (PostgreSQL: a server of its own there with a gigabyte
of shared buffers, about 7 GB for 10 million spans; SQLite: 1 GB for 2 million). Then asks the query
service over HTTP, in a process of its own, one request at a time: every question first with all its
parameters to warm up, then measured with the same 50. "storage" is the median of the same question
put to the storage without HTTP and JSON; "CPU" is what service and database spend on the mean
request.
Then one trace of 50,000 spans: how long its flushes take while it grows, and how it streams.
With --beside-ingest all is asked again while a collector takes half of what it can take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import random
import statistics
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil

from benchmarks.databases import new_database
from benchmarks.export_requests import SPANS_PER_REQUEST
from benchmarks.goals import Goal, print_goals
from benchmarks.load import run_load
from benchmarks.processes import (
    cpu_s,
    postgres_processes,
    running_collector,
    running_query_service,
    sampled_memory,
    wait_for_port,
)
from benchmarks.query_data import NEVER, Sample, build, write_large_trace
from msgtrace.model.search import TraceFilter, TraceSearch
from msgtrace.model.span import DEFAULT_TENANT, TraceId
from msgtrace.model.units import MIB, NS_PER_DAY, NS_PER_MS, NS_PER_S
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from tests.postgres_server import wheel_server, with_database

PARAMETERS = 50
LARGE_TRACE_SPANS = 50_000
SHARED_BUFFERS = "1GB"
"""A sixth of 10 million spans; PostgreSQL's own 128 MB are meant for a start, not for a server."""
SQLITE_FACTOR = 2
"""SQLite's goals are so many times PostgreSQL's."""

Parameters = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Question:
    """goal_ms: for the median, on PostgreSQL. filters: one set of list parameters for each try."""

    name: str
    goal_ms: float
    path: str
    filters: list[Parameters]
    method: str = "GET"

    def targets(self) -> Iterator[str]:
        """Path and query of each request."""
        for parameters in self.filters:
            query = urllib.parse.urlencode([each for each in parameters if each[0] != "id"])
            path = self.path.format(**dict(each for each in parameters if each[0] == "id"))
            yield f"{path}?{query}" if query else path


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds of each request, sorted, and of CPU of service and database for the mean one."""

    took_ms: list[float]
    cpu_ms: float

    @property
    def median_ms(self) -> float:
        """Of the requests."""
        return statistics.median(self.took_ms)

    @property
    def p95_ms(self) -> float:
        """Of the requests."""
        return self.took_ms[int(len(self.took_ms) * 0.95)]


def make_questions(samples: Sequence[Sample], rng: random.Random) -> list[Question]:
    """Each with PARAMETERS different parameters, drawn from what is stored."""
    some = rng.sample(list(samples), len(samples))
    medium = [each for each in some if 45 <= each.span_count <= 55] or some
    failed = [each for each in some if each.has_errors] or some
    named = [each for each in some if each.session_id] or some

    def ask(
        name: str, goal_ms: float, of: Sequence[Sample], make: Callable[[Sample], Parameters]
    ) -> Question:
        chosen = [of[n % len(of)] for n in range(PARAMETERS)]
        return Question(name, goal_ms, "/api/v1/traces", [make(each) for each in chosen])

    traces = "/api/v1/traces"
    return [
        Question(
            "trace by id (50 spans)",
            10,
            traces + "/{id}",
            [[("id", medium[n % len(medium)].trace_id)] for n in range(PARAMETERS)],
        ),
        ask("list newest", 15, some, lambda _: [("limit", str(rng.randrange(50, 101)))]),
        ask("by service", 25, some, lambda each: [("service_name", each.service)]),
        ask(
            "by service and operation",
            25,
            some,
            lambda each: [("service_name", each.service), ("name", each.name)],
        ),
        ask("by duration", 25, some, lambda each: _duration(some, rng)),
        ask("errors only", 25, failed, lambda each: [("has_errors", "true"), *_before(each)]),
        ask("session or user", 25, named, lambda each: _who(each, rng)),
        ask("time window", 25, some, lambda each: _window(each, rng)),
        ask("attribute, whole range", 500, some, lambda each: [_attribute(each, rng)]),
        ask("everything together", 50, some, lambda each: _everything(each)),
        Question("statistics of a day", 50, "/api/v1/stats", [_day(each) for each in some[:50]]),
        Question(
            "delete one trace",
            20,
            traces + "/{id}",
            [[("id", each.trace_id)] for each in rng.sample(some, PARAMETERS)],
            method="DELETE",
        ),
    ]


def _duration(samples: Sequence[Sample], rng: random.Random) -> Parameters:
    """From half of the traces down to one in thousands."""
    durations = sorted(each.duration_ns for each in samples)
    share = 1 - 0.5 ** rng.uniform(1, 11)
    bound = durations[min(int(share * len(durations)), len(durations) - 1)]
    return [("min_duration_ms", f"{bound / NS_PER_MS:.3f}")]


def _before(sample: Sample) -> Parameters:
    return [("end", str(sample.start_ns + 1))]


def _who(sample: Sample, rng: random.Random) -> Parameters:
    if rng.random() < 0.5:
        return [("session_id", sample.session_id or "")]
    return [("user_id", sample.user_id or "")]


def _window(sample: Sample, rng: random.Random) -> Parameters:
    length_ns = int(60 * NS_PER_S * 1440 ** rng.random())  # a minute to a day
    return [("start", str(sample.start_ns)), ("end", str(sample.start_ns + length_ns))]


def _attribute(sample: Sample, rng: random.Random) -> tuple[str, str]:
    """From one value a span over some hundred traces to a third of all, and one that nobody has."""
    key = rng.choice(
        ("request.id",) * 3
        + ("customer.id",) * 3
        + ("url.path", "server.address", "http.response.status_code", "never")
    )
    name, value = NEVER if key == "never" else (key, sample.attributes[key])
    return "attr", f"{name}={value}"


def _everything(sample: Sample) -> Parameters:
    who = [("session_id", sample.session_id)] if sample.session_id else []
    return [
        ("service_name", sample.service),
        ("name", sample.name),
        ("attr", f"customer.id={sample.attributes['customer.id']}"),
        ("attr", f"http.request.method={sample.attributes['http.request.method']}"),
        ("has_errors", str(sample.has_errors).lower()),
        ("min_duration_ms", f"{sample.duration_ns * 0.9 / NS_PER_MS:.3f}"),
        ("start", str(sample.start_ns - NS_PER_DAY)),
        ("end", str(sample.start_ns + NS_PER_DAY)),
        *who,
    ]


def _day(sample: Sample) -> Parameters:
    return [("start", str(sample.start_ns)), ("end", str(sample.start_ns + NS_PER_DAY))]


# Asking


class Client:
    """One HTTP connection to a query service."""

    def __init__(self, port: int, timeout_s: float = 120) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, method: str, target: str) -> tuple[int, bytes]:
        """Status and body."""
        self._connection.request(method, target)
        response = self._connection.getresponse()
        return response.status, response.read()

    def time(self, method: str, target: str) -> float:
        """Milliseconds until the whole answer is there. Raises RuntimeError for an error."""
        started_at = time.perf_counter()
        status, body = self.ask(method, target)
        took_ms = (time.perf_counter() - started_at) * 1e3
        if status not in (200, 204, 404):
            raise RuntimeError(f"{method} {target}: {status} {body[:200]!r}")
        return took_ms

    def time_stream(self, target: str) -> tuple[float, float, int]:
        """Milliseconds until the first byte and until the last, and how many there are."""
        started_at = time.perf_counter()
        self._connection.request("GET", target)
        response = self._connection.getresponse()
        size = len(response.read(1))
        first_ms = (time.perf_counter() - started_at) * 1e3
        while chunk := response.read(MIB):
            size += len(chunk)
        return first_ms, (time.perf_counter() - started_at) * 1e3, size


def measure(
    client: Client, questions: Sequence[Question], processes: Sequence[psutil.Process]
) -> dict[str, Figures]:
    """Each question's figures, warm. processes: those that answer."""
    figures = {}
    for question in questions:
        if question.method == "GET":
            for target in question.targets():
                client.time("GET", target)
        before_s = sum(map(cpu_s, processes))
        took_ms = sorted(client.time(question.method, target) for target in question.targets())
        cpu_ms = (sum(map(cpu_s, processes)) - before_s) * 1e3 / len(took_ms)
        figures[question.name] = Figures(took_ms, cpu_ms)
    return figures


async def measure_storage(storage: Storage, questions: Sequence[Question]) -> dict[str, float]:
    """The median milliseconds of the storage alone; deletions are left out."""
    figures = {}
    for question in questions:
        if question.method == "GET":
            took_ms = []
            for parameters in question.filters:
                started_at = time.perf_counter()
                await _ask_storage(storage, question, parameters)
                took_ms.append((time.perf_counter() - started_at) * 1e3)
            figures[question.name] = statistics.median(took_ms)
    return figures


async def _ask_storage(storage: Storage, question: Question, parameters: Parameters) -> None:
    if "{id}" in question.path:
        await storage.get_trace(DEFAULT_TENANT, TraceId(bytes.fromhex(parameters[0][1])))
        return
    wanted, limit = _as_filter(parameters)
    if question.path.endswith("stats"):
        await storage.get_stats(DEFAULT_TENANT, wanted)
    else:
        await storage.find_traces(DEFAULT_TENANT, TraceSearch(filter=wanted, limit=limit))


def _as_filter(parameters: Parameters) -> tuple[TraceFilter, int]:
    fields: dict[str, Any] = {}
    limit = 100
    for name, value in parameters:
        if name == "limit":
            limit = int(value)
        elif name == "attr":
            key, _, text = value.partition("=")
            fields["attributes"] = (*fields.get("attributes", ()), (key, text))
        elif name == "has_errors":
            fields[name] = value == "true"
        elif name in ("start", "end"):
            fields[f"{name}_ns"] = int(value)
        elif name == "min_duration_ms":
            fields["min_duration_ns"] = int(float(value) * NS_PER_MS)
        else:
            fields[name] = value
    return TraceFilter(**fields), limit


# Data


class Kept(msgspec.Struct):
    """What is known of data that was built."""

    spans: int
    samples: list[Sample]


@contextlib.contextmanager
def database(folder: Path, kind: str) -> Iterator[str]:
    """URL of the database that is kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        yield f"sqlite:///{folder.resolve() / 'traces.db'}"
        return
    with wheel_server(folder.resolve()) as url:
        has_changed = asyncio.run(_give_memory(url))
    if has_changed:
        print(f"PostgreSQL starts anew with shared_buffers = {SHARED_BUFFERS}")
    with wheel_server(folder.resolve()) as url:
        yield url


async def _give_memory(url: str) -> bool:
    """Set the buffers that the server starts with; whether they were others."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SHOW shared_buffers") == SHARED_BUFFERS:
            return False
        await connection.execute(f"ALTER SYSTEM SET shared_buffers = '{SHARED_BUFFERS}'")
        return True
    finally:
        await connection.close()


def ensure_data(url: str, folder: Path, spans: int, seed: int) -> tuple[str, list[Sample]]:
    """The URL of a database with so many spans, and samples of them; builds it if need be."""
    known = folder / f"samples-{spans}.json"
    name = f"query_{spans}"
    if known.exists():
        kept = msgspec.json.decode(known.read_bytes(), type=Kept)
        return (url if url.startswith("sqlite") else with_database(url, name)), kept.samples
    if not url.startswith("sqlite"):
        url = new_database(url, name)
    samples = asyncio.run(_build(url, spans, seed))
    known.write_bytes(msgspec.json.encode(Kept(spans, samples)))
    return url, samples


async def _build(url: str, spans: int, seed: int) -> list[Sample]:
    async with open_storage(Settings(database_url=url)) as storage:
        samples = await build(storage, spans, seed)
        await _make_filters(storage)
    if not url.startswith("sqlite"):
        connection = await asyncpg.connect(url)
        await connection.execute("VACUUM (ANALYZE)")  # what autovacuum does in time
        await connection.execute("CHECKPOINT")
        await connection.close()
    return samples


async def _make_filters(storage: Storage) -> None:
    """What a collector does beside ingest, in a tenth of its time."""
    made, began_s = await storage.make_attribute_filters(), time.perf_counter()
    while added := await storage.make_attribute_filters():
        made += added
    print(f"{made:>12,} filters of attributes in {time.perf_counter() - began_s:.0f} s", flush=True)


# The table


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the data")
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--spans", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--beside-ingest", action="store_true")
    parser.add_argument("--only", default="", help="questions whose name holds this")
    options = parser.parse_args(arguments)
    spans = options.spans or (10_000_000 if options.database == "postgres" else 2_000_000)
    folder = options.data / f"{options.database}-{spans}"
    with database(folder, options.database) as admin_url:
        url, samples = ensure_data(admin_url, folder, spans, options.seed)
        run(url, samples, options.only, options.beside_ingest)


def run(url: str, samples: Sequence[Sample], only: str, beside_ingest: bool) -> None:
    """Ask everything of the database behind the URL, and print it."""
    factor = SQLITE_FACTOR if url.startswith("sqlite") else 1
    rng = random.Random(time.time_ns())
    questions = [each for each in make_questions(samples, rng) if only in each.name]
    with (
        running_query_service(url) as (process, port),
        contextlib.closing(Client(port)) as client,
    ):
        processes = [process, *postgres_processes(url)[:1]]  # the first one starts all others
        alone = measure(client, questions, processes)
        of_storage = asyncio.run(_measure_storage(url, questions))
        print_table(questions, alone, of_storage, factor)
        if not only:
            _run_large_trace(url, process, client, factor)
        if beside_ingest:
            _run_beside_ingest(url, port, questions, alone)


async def _measure_storage(url: str, questions: Sequence[Question]) -> dict[str, float]:
    async with open_storage(Settings(database_url=url)) as storage:
        return await measure_storage(storage, questions)


def print_table(
    questions: Sequence[Question],
    alone: dict[str, Figures],
    of_storage: dict[str, float],
    factor: float,
) -> None:
    """Each question with its goal, median, 95th percentile, CPU, and the storage's median."""
    print(f"{'milliseconds':<28} {'goal':>7} {'p50':>8} {'p95':>8} {'CPU':>8} {'storage':>8}")
    for question in questions:
        figures, goal = alone[question.name], question.goal_ms * factor
        storage = of_storage.get(question.name)
        print(
            f"{question.name:<28} {goal:>7.0f} {figures.median_ms:>8.1f} {figures.p95_ms:>8.1f}"
            f" {figures.cpu_ms:>8.1f} {'' if storage is None else format(storage, '.1f'):>8}"
            f"{'' if figures.median_ms <= goal else '  MISSED'}"
        )


def _run_large_trace(url: str, process: psutil.Process, client: Client, factor: float) -> None:
    trace_id, took_s = asyncio.run(_write_large_trace(url))
    third = max(len(took_s) // 3, 1)
    early, late = (
        statistics.mean(took_s[:third]),
        statistics.mean(took_s[-third - 1 : -1] or took_s),
    )
    print(f"\none trace of {LARGE_TRACE_SPANS:,} spans:")
    print_goals([Goal("a flush in its last third, of one in its first", late / early, ".1f")])
    for name, path in (("detail", ""), ("tree", "/tree")):
        target = f"/api/v1/traces/{trace_id}{path}"
        client.time_stream(target)
        before_bytes, before_s = process.memory_info().rss, cpu_s(process)
        with sampled_memory(process) as memory:
            first_ms, whole_ms, size = client.time_stream(target)
        service_ms = (cpu_s(process) - before_s) * 1e3
        added = (max(memory) - before_bytes) / MIB
        print_goals(
            [
                Goal(f"{name}, first byte, ms", first_ms, ",.0f", at_most=300 * factor),
                Goal(f"{name}, whole, ms", whole_ms, ",.0f", at_most=2_000 * factor),
                Goal(f"{name}, CPU of the service, ms", service_ms, ",.0f"),
                Goal(f"{name}, MiB sent", size / MIB, ".1f"),
                Goal(f"{name}, MiB of memory for it", added, ".1f"),
            ]
        )
    client.time("DELETE", f"/api/v1/traces/{trace_id}")


async def _write_large_trace(url: str) -> tuple[str, list[float]]:
    async with open_storage(Settings(database_url=url)) as storage:
        return await write_large_trace(storage, LARGE_TRACE_SPANS, time.time_ns())


def _run_beside_ingest(
    url: str, port: int, questions: Sequence[Question], alone: dict[str, Figures]
) -> None:
    began_ns = time.time_ns() - 2 * NS_PER_S
    with running_collector(url) as (_, ports):
        wait_for_port(ports["http"])
        whole = run_load("http", ports["http"], 200, seed=began_ns)
        half = whole["spans"] / whole["seconds"] / 2 / SPANS_PER_REQUEST
        expected_s = 10 + 6 * sum(sum(each.took_ms) for each in alone.values()) / 1e3
        load = threading.Thread(
            target=lambda: run_load(
                "http", ports["http"], int(half * expected_s), began_ns + 1, rate=half
            )
        )
        load.start()
        try:
            time.sleep(5)
            with contextlib.closing(Client(port)) as client:
                beside = measure(client, questions, [])
            if not load.is_alive():
                print("the load ended before the questions did")
        finally:
            load.join()
            with contextlib.closing(Client(port, timeout_s=3_600)) as deleting:
                deleting.ask("DELETE", f"/api/v1/traces?start={began_ns}")
    spans_per_s = half * SPANS_PER_REQUEST
    print(f"\nbeside ingest of {spans_per_s:,.0f} spans/s, half of what it takes alone:")
    print(f"{'milliseconds':<28} {'alone':>8} {'beside':>8} {'times':>6}")
    for question in questions:
        one, two = alone[question.name].median_ms, beside[question.name].median_ms
        print(f"{question.name:<28} {one:>8.1f} {two:>8.1f} {two / one:>6.1f}")


if __name__ == "__main__":
    main()
