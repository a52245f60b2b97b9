"""Millions of spans as a company of sixty services would leave them, for `benchmarks.query`.

Ten days that end now, in the order of their arrival: every flush holds some thousand spans, and one
trace in four arrives in two flushes. Sizes of traces are log-normal (half have up to 13 spans, the
greatest of the usual ones 200); one in five thousand has up to 3,000. One trace in fifty fails, one
in three has a session and a user, one in twenty calls a model. Attributes range from two values to
one value a span.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from msgtrace.model.batch import SpanBatch, operations_of, summarize
from msgtrace.model.genai import GenAiFacts, read_facts
from msgtrace.model.span import DEFAULT_TENANT, STATUS_ERROR, Row
from msgtrace.model.units import NS_PER_DAY, NS_PER_MS
from msgtrace.storage.protocol import Storage

DAYS = 10
SERVICES = 60
MAX_TRACE_SPANS = 200
FLUSH_SPANS = 4_096
SAMPLES = 4_000
"""Traces whose facts are kept, so that queries can ask for what is there."""

NEVER = ("request.id", "never-seen")
"""An attribute that no span carries."""

_CUSTOMERS = 50_000
_INSTANCES = 6
_FRAGMENTS = 40
_MODELS = ("large-2", "small-2", "embed-1")


@dataclass(frozen=True, slots=True)
class Sample:
    """Facts of one trace. name, service and attributes are those of one of its spans."""

    trace_id: str
    start_ns: int
    duration_ns: int
    span_count: int
    has_errors: bool
    service: str
    name: str
    attributes: dict[str, str]
    session_id: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class _Operation:
    service: int
    name: str
    kind: int
    fragments: list[str]
    """Beginnings of attribute texts."""


@dataclass(frozen=True, slots=True)
class _World:
    """What stays the same all ten days."""

    operations: list[list[_Operation]]
    """By service; the first ones are the frequent ones."""
    calls: list[list[int]]
    """Which services a service calls."""
    resources: list[list[Row]]
    scope: Row
    entrances: list[int]
    """Services that traces begin at, each as often as it is busy."""


def make_world(rng: random.Random) -> _World:
    """The same for the same seed."""
    operations = [
        [_make_operation(rng, service, number) for number in range(rng.randrange(6, 30))]
        for service in range(SERVICES)
    ]
    entrances = [
        service for service in range(SERVICES // 2) for _ in range(SERVICES // (service + 1))
    ]
    return _World(
        operations=operations,
        calls=[rng.sample(range(SERVICES), 4) for _ in range(SERVICES)],
        resources=[
            [_make_resource(service, instance) for instance in range(_INSTANCES)]
            for service in range(SERVICES)
        ],
        scope=(DEFAULT_TENANT, _hash("scope"), "benchmark", "1.4.2", "{}", None, None),
        entrances=entrances,
    )


def _make_operation(rng: random.Random, service: int, number: int) -> _Operation:
    verb = rng.choice(("GET", "POST", "query", "publish", "process"))
    name = f"{verb} /{service_name(service)}/operation-{number}"
    return _Operation(
        service=service,
        name=name,
        kind=rng.choice((1, 2, 3, 3, 4, 5)),
        fragments=[_make_fragment(rng) for _ in range(_FRAGMENTS)],
    )


def _make_fragment(rng: random.Random) -> str:
    fields = {
        "http.request.method": rng.choice(("GET", "POST", "PUT", "DELETE")),
        "http.response.status_code": rng.choice((200, 200, 200, 201, 204, 304, 400, 404)),
        "url.path": f"/api/v1/items/{rng.randrange(5_000)}",
        "server.address": f"node-{rng.randrange(200)}.internal",
        "db.system.name": rng.choice(("postgresql", "redis", "none")),
        "network.peer.port": rng.choice((443, 5432, 6379, 8080)),
        "cache.hit": rng.random() < 0.5,
        "retry.delay_s": rng.choice((0.5, 1.25, 2.75)),
    }
    return msgspec.json.encode(fields).decode()[:-1]


def _make_resource(service: int, instance: int) -> Row:
    attributes = {
        "service.name": service_name(service),
        "service.version": f"{service % 7}.{instance % 2}",
        "host.name": f"host-{service}-{instance}",
        "deployment.environment.name": "staging" if instance == 0 else "production",
    }
    text = msgspec.json.encode(attributes).decode()
    return (DEFAULT_TENANT, _hash(text), text, None, "[]", None)


def service_name(service: int) -> str:
    """The name of a service by its number."""
    return f"service-{service:02d}"


async def build(storage: Storage, spans: int, seed: int) -> list[Sample]:
    """Store about so many spans; return samples of their traces."""
    maker = TraceMaker(seed, spans)
    started_at = time.perf_counter()
    stored = 0
    for number, batch in enumerate(maker.batches()):
        stored += await storage.write_spans([batch])
        if number % 100 == 0:
            took_s = time.perf_counter() - started_at
            print(f"\r{stored:>12,} spans, {stored / took_s:,.0f} a second", end="", flush=True)
    print(f"\r{stored:>12,} spans in {time.perf_counter() - started_at:.0f} s        ")
    return maker.samples


async def write_large_trace(storage: Storage, spans: int, seed: int) -> tuple[str, list[float]]:
    """Store one trace in flushes; return its id and the seconds that each flush took."""
    took_s: list[float] = []
    rows = TraceMaker(seed, spans).make_spans(spans, time.time_ns() - NS_PER_DAY)
    for start in range(0, spans, FLUSH_SPANS):
        started_at = time.perf_counter()
        await storage.write_spans(
            [TraceMaker(seed, 0).make_batch(rows[start : start + FLUSH_SPANS])]
        )
        took_s.append(time.perf_counter() - started_at)
    return rows[0][1].hex(), took_s


class TraceMaker:
    """Makes traces in the order of their start."""

    def __init__(self, seed: int, spans: int, max_trace_spans: int = MAX_TRACE_SPANS) -> None:
        self._rng = random.Random(seed)
        self._world = make_world(self._rng)
        self._spans = spans
        self._max_trace_spans = max_trace_spans
        self._start_ns = time.time_ns() - DAYS * NS_PER_DAY
        self._made = 0
        self._traces = 0
        self.samples: list[Sample] = []

    def batches(self) -> Iterator[SpanBatch]:
        """All spans in flushes."""
        rows: list[Row] = []
        genai: dict[int, GenAiFacts] = {}
        late: list[Row] = []
        while self._made < self._spans:
            trace, facts = self._make_trace()
            held = len(trace) // 2 if len(trace) > 3 and self._rng.random() < 0.25 else 0
            genai |= {len(rows) + place - held: fact for place, fact in facts if place >= held}
            late += trace[:held]
            rows += trace[held:]
            if len(rows) >= FLUSH_SPANS:
                yield self.make_batch(rows, genai)
                # The children of some have arrived, their roots come with the next flush.
                genai = {n: fact for n, row in enumerate(late) if (fact := _facts(row))}
                rows, late = late, []
        yield self.make_batch(rows + late, genai)

    def make_batch(self, rows: list[Row], genai: dict[int, GenAiFacts] | None = None) -> SpanBatch:
        """The rows as the decoder would hand them over."""
        resources = {row[1]: row for instances in self._world.resources for row in instances}
        scope = self._world.scope
        return SpanBatch(
            spans=rows,
            resources=resources,
            scopes={scope[1]: scope},
            genai=genai or {},
            traces=summarize(rows, genai or {}),
            operations=operations_of(rows),
            body_bytes=len(rows) * 400,
        )

    def _make_trace(self) -> tuple[list[Row], list[tuple[int, GenAiFacts]]]:
        rng = self._rng
        size = self._size()
        # Traffic follows the day: twice the mean at noon, next to nothing at night.
        share = self._made / self._spans
        start_ns = self._start_ns + int(_by_daylight(share * DAYS) * NS_PER_DAY)
        rows = self.make_spans(size, start_ns)
        self._made += size
        self._traces += 1
        facts = [(n, fact) for n in range(min(size, 3)) if (fact := _facts(rows[n]))]
        self._sample(rows, facts)
        rng.random()
        return rows, facts

    def _size(self) -> int:
        rng = self._rng
        if rng.random() < 1 / 5_000 and self._max_trace_spans == MAX_TRACE_SPANS:
            return rng.randrange(500, 3_000)
        return max(1, min(self._max_trace_spans, int(math.exp(rng.gauss(2.6, 1.0)))))

    def make_spans(self, size: int, trace_start_ns: int) -> list[Row]:
        """One trace, its root first."""
        rng, world = self._rng, self._world
        random_, below = rng.random, rng.randrange
        trace_id = rng.randbytes(16)
        ids = rng.randbytes(8 * size)
        failing = below(size) if random_() < 0.02 else -1
        service = rng.choice(world.entrances)
        scope_id = world.scope[1]
        places: list[tuple[bytes, int, int, int]] = []
        rows: list[Row] = []
        who = self._who()
        for n in range(size):
            span_id = ids[8 * n : 8 * n + 8]
            if n == 0:
                parent_id, start_ns = None, trace_start_ns
                end_ns = start_ns + int(math.exp(rng.gauss(4.4, 1.1)) * NS_PER_MS)
            else:
                parent_id, first_ns, last_ns, service = places[int(random_() * random_() * n)]
                if random_() < 0.3:
                    service = world.calls[service][int(random_() * 4)]
                start_ns = first_ns + int(random_() * (last_ns - first_ns))
                end_ns = start_ns + int(random_() * (last_ns - start_ns))
            places.append((span_id, start_ns, end_ns, service))
            known = world.operations[service]
            operation = known[int(random_() * random_() * len(known))]
            resource = world.resources[service][int(random_() * _INSTANCES)]
            is_failing = n == failing
            fragment = operation.fragments[int(random_() * _FRAGMENTS)]
            rows.append(
                (
                    DEFAULT_TENANT,
                    trace_id,
                    span_id,
                    parent_id,
                    start_ns,
                    end_ns,
                    resource[1],
                    scope_id,
                    operation.kind,
                    STATUS_ERROR if is_failing else 0,
                    257,
                    None,
                    None,
                    None,
                    service_name(service),
                    operation.name,
                    "it broke" if is_failing else None,
                    None,
                    f'{fragment},"customer.id":"customer-{int(random_() * _CUSTOMERS)}"'
                    f',"request.id":"{span_id.hex()}"{who if n < 2 else ""}}}',
                    None,
                    None,
                )
            )
        return rows

    def _who(self) -> str:
        """What the first two spans of some traces say about people and models."""
        rng = self._rng
        said = ""
        if rng.random() < 0.33:
            said += f',"session.id":"session-{rng.randrange(60_000)}"'
            said += f',"user.id":"user-{rng.randrange(20_000)}"'
        if rng.random() < 0.05:
            said += f',"gen_ai.request.model":"{rng.choice(_MODELS)}"'
            said += f',"gen_ai.usage.input_tokens":{rng.randrange(1, 4_000)}'
        return said

    def _sample(self, rows: list[Row], facts: list[tuple[int, GenAiFacts]]) -> None:
        """Keep some traces, all of the time alike: a reservoir."""
        place = len(self.samples)
        if place >= SAMPLES:
            place = self._rng.randrange(self._traces)
            if place >= SAMPLES:
                return
        row = self._rng.choice(rows)
        ends = max(each[5] for each in rows)
        fact = facts[0][1] if facts else None
        sample = Sample(
            trace_id=row[1].hex(),
            start_ns=rows[0][4],
            duration_ns=ends - rows[0][4],
            span_count=len(rows),
            has_errors=any(each[9] == STATUS_ERROR for each in rows),
            service=row[14],
            name=row[15],
            attributes={
                key: str(value).lower() if isinstance(value, bool) else str(value)
                for key, value in msgspec.json.decode(row[18]).items()
            },
            session_id=fact.session_id if fact else None,
            user_id=fact.user_id if fact else None,
        )
        self.samples[place : place + 1] = [sample]


def _by_daylight(days: float) -> float:
    """When so many days' share of the traffic has arrived, in days."""
    return days - math.sin(2 * math.pi * days) / (2 * math.pi) * 0.9


def _facts(row: Row) -> GenAiFacts | None:
    attributes: str = row[18]
    if "session.id" not in attributes and "gen_ai" not in attributes:
        return None
    return read_facts(msgspec.json.decode(attributes))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)
