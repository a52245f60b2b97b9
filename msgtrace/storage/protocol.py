"""All that the rest of the program knows about storage.

The promises here are what tests/contract proves for every backend.
Every method may raise StorageUnavailable (a retry may help) or StorageError (it will not; for a
write that is DataRefused). No driver exception leaves a backend.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from msgtrace.model.batch import SpanBatch
from msgtrace.model.dead_letter import (
    DeadLetter,
    DeadLetterSummary,
    DeadLetterTotals,
    LetterId,
    Place,
)
from msgtrace.model.maintenance import (
    Finding,
    Partition,
    Purged,
    PurgePlan,
    RetentionState,
    SizeVerdict,
    VacuumStep,
)
from msgtrace.model.search import TraceFilter, TracePage, TracePlace, TraceSearch
from msgtrace.model.session import SessionPage, SessionSearch, SessionSummary
from msgtrace.model.span import Span, TenantId, TraceId
from msgtrace.model.trace import Operation, SpanPlace, Trace, TraceOutline, TraceStats
from msgtrace.storage.rebuild import RebuildableStorage


class SpanWriter(Protocol):
    """What the batcher needs."""

    @property
    def writer_count(self) -> int:
        """How many `write_spans` calls gain from running at the same time."""
        ...

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        """Store all batches in one transaction; return how many spans were new.

        When it returns, the spans survive a crash of this process, of the database and of the
        machine.
        Idempotent: a span is known by (tenant, trace_id, span_id, start time); the first write of
        it stays, others count for nothing.
        Trace summaries count each stored span once, whatever the order and the concurrency of
        writes.
        All or nothing: after an error no span of this call is kept.
        Raises DataRefused only for what is in the batches: less of them may well be stored. All
        else, a missing table or right among it, is StorageUnavailable.
        """
        ...


class DeadLetterStore(Protocol):
    """Where requests go of which the database refuses spans.

    Its writes are as durable as those of spans.
    """

    async def keep(self, letter: DeadLetter, *, max_bytes: int) -> bool:
        """Keep the letter; False if all letters together would then exceed `max_bytes`.

        A letter that is kept already gets the reason and the spans of the new one, whatever the
        limit; its time stays.
        """
        ...

    async def list(
        self, tenant_id: TenantId, *, limit: int, after: Place | None = None
    ) -> Sequence[DeadLetterSummary]:
        """Letters without their requests, newest first, from behind `after` on."""
        ...

    async def get(self, tenant_id: TenantId, letter_id: LetterId) -> DeadLetter | None:
        """The whole letter, None if there is none."""
        ...

    async def delete(self, tenant_id: TenantId, letter_id: LetterId) -> bool:
        """Forget the letter; False if there was none."""
        ...

    async def sum(self) -> DeadLetterTotals:
        """How many letters there are, of all tenants, and how much they count for."""
        ...


class TraceReader(Protocol):
    """What the query side needs.

    A read sees every write that returned before it began, and never waits for a writer.
    Raises QueryTimeout when a read runs longer than the time it was given.
    """

    async def find_traces(self, tenant_id: TenantId, search: TraceSearch) -> TracePage:
        """One page of the matching traces, newest start first, then greatest trace id.

        Following `next_cursor` shows every trace that is stored all the while exactly once.
        """
        ...

    async def get_trace(self, tenant_id: TenantId, trace_id: TraceId) -> Trace | None:
        """The whole trace, None if no span of it is stored."""
        ...

    async def get_trace_or_outline(
        self, tenant_id: TenantId, trace_id: TraceId, *, max_spans: int
    ) -> Trace | TraceOutline | None:
        """The whole trace, or its outline if its summary counts more than `max_spans`."""
        ...

    def read_outlined(
        self, tenant_id: TenantId, trace_id: TraceId, places: Iterable[SpanPlace]
    ) -> AsyncIterator[list[Span]]:
        """The spans at these places of an outline, in this order, in chunks of bounded size.

        Each chunk is a read of its own, whenever it is asked for. Raises StorageUnavailable when a
        span is gone by then: what was read so far is no longer the trace.
        """
        ...

    async def find_places(self, tenant_id: TenantId, search: TraceSearch) -> list[TracePlace]:
        """Where the traces of one page are, in the list's order, without counting the others."""
        ...

    def read_spans(
        self, tenant_id: TenantId, places: Sequence[TracePlace]
    ) -> AsyncIterator[list[Span]]:
        """All spans of these traces in chunks of bounded size, those of one trace together.

        Each chunk is a read of its own, whenever it is asked for. Spans that were stored before the
        places were found are all there, but for those that have been deleted since.
        """
        ...

    async def get_stats(self, tenant_id: TenantId, trace_filter: TraceFilter) -> TraceStats:
        """Sums over the matching traces."""
        ...

    async def find_sessions(self, tenant_id: TenantId, search: SessionSearch) -> SessionPage:
        """One page of the sessions, the one with the newest trace first.

        Following `next_cursor` shows every session once whose newest trace stays the same.
        """
        ...

    async def get_session(self, tenant_id: TenantId, session_id: str) -> SessionSummary | None:
        """The session, None if no trace is of it."""
        ...

    async def list_services(self, tenant_id: TenantId) -> list[str]:
        """The services that spans come from, sorted.

        A service stays as long as one of its operations.
        """
        ...

    async def list_operations(self, tenant_id: TenantId, service_name: str) -> list[Operation]:
        """The distinct (name, kind) of the service's spans, sorted.

        Names are cut to MAX_LABEL_CHARS. Each stays until the day of its newest span is purged, or
        the last trace is deleted. There are bounds, see `storage.operations`.
        Empty for an unknown service.
        """
        ...


class StorageAdmin(Protocol):
    """What maintenance needs."""

    async def delete_trace(self, tenant_id: TenantId, trace_id: TraceId) -> bool:
        """Delete the trace and all its spans; False if there was none.

        Spans that are written while it runs may stay; their summary then counts exactly them.
        """
        ...

    async def delete_traces(self, tenant_id: TenantId, trace_filter: TraceFilter) -> int:
        """Delete every matching trace.

        Return how many. Interrupted, it leaves whole traces only.
        """
        ...

    async def make_attribute_filters(self) -> int:
        """Make some of the filters that are missing for traces of the past; return how many.

        They speed up the search for attributes and change nothing about what it finds. Any number
        of processes may do so at the same time.
        """
        ...

    @property
    def backend(self) -> str:
        """What kind of database it is: sqlite or postgres."""
        ...

    @property
    def can_be_away(self) -> bool:
        """Whether the database may be gone while this machine runs. A local file may not."""
        ...

    async def check(self) -> None:
        """Return if the database answers a query; never waits for reads and writes under way."""
        ...

    def count_connections(self) -> Mapping[str, tuple[int, int]]:
        """How many connections there are and how many of them have work, by what they are for.

        Empty for a backend without a server.
        """
        ...

    async def get_status(self) -> StorageStatus:
        """Version, schema, size and content, for operators; never reads all spans."""
        ...


class Purger(Protocol):
    """The right to purge, which one process has at a time.

    What it does is done in small steps, with pauses between them that leave the database to
    others. Ended at any moment, by kill -9 too, it leaves a consistent database and can be done
    again.
    """

    def purge(self, before_ns: int) -> AsyncGenerator[Purged, None]:
        """Delete every span that starts before `before_ns`; yield what each step did.

        The summaries of traces are deleted with the last of their spans. Of a trace that has later
        spans too, these stay, and the summary is what it would be if only they had been sent.
        Spans of that time that are written meanwhile may stay, for the next purge.
        before_ns: taken down to `Maintenance.edge_of`.
        Raises StorageUnavailable, also where readers hold a partition for too long.
        """
        ...

    async def record(self, purged: Purged, *, before_ns: int, now_ns: int) -> None:
        """Tell all processes that everything before `before_ns` is purged, at `now_ns`."""
        ...

    async def give_back_space(self) -> int:
        """Return free space to the file system, as far as that holds up nobody.

        Returns how many bytes. Some is kept for what comes next.
        """
        ...


class Maintenance(Protocol):
    """What keeps a database in shape over years."""

    def purging(self) -> AbstractAsyncContextManager[Purger | None]:
        """Be the one who purges while the block runs; None, at once, if another process is."""
        ...

    def edge_of(self, before_ns: int) -> int:
        """The latest time up to `before_ns` at which this database can cut."""
        ...

    async def plan_purge(self, before_ns: int) -> PurgePlan:
        """What `Purger.purge` would do now. Changes nothing."""
        ...

    async def judge_size(self, max_bytes: int, now_ns: int) -> SizeVerdict:
        """How far must be purged so that traces and all that belongs to them fit `max_bytes`?"""
        ...

    async def get_retention_state(self) -> RetentionState:
        """What was last recorded."""
        ...

    async def make_partitions(self, days_ahead: int) -> list[str]:
        """Make the partitions of today and the next days that are missing; return their names.

        Empty for a database without partitions.
        """
        ...

    async def list_partitions(self) -> list[Partition]:
        """By time, the default one last. Raises NotSupported for a database without them."""
        ...

    def vacuum(self, *, full: bool) -> AsyncGenerator[VacuumStep, None]:
        """Make the space of deleted rows usable, and give it back as far as that is possible.

        full: rewrite everything, which gives all of it back and locks out writers meanwhile.
        Raises NotSupported where only a full one helps.
        """
        ...

    async def examine(self) -> list[Finding]:
        """What is wrong with the database itself: rights, versions, clock, indexes, room."""
        ...

    async def sample_drift(self, trace_count: int) -> tuple[int, list[TraceId]]:
        """Compare about so many summaries with their spans.

        Return how many were compared, and the traces whose summary is wrong.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageStatus:
    """What `msgtrace-admin status` shows.

    `url` has no password in it. `schema_version` is the newest of `migrations`, which are applied.
    trace_count, span_count: exact only if `is_exact`. oldest_ns and newest_ns are starts of traces,
    None if there is none. spans_per_s: of the traces that started within the last minute.
    partitions: 0 where there are none.
    """

    backend: str
    url: str
    server_version: str
    schema_version: int
    database_bytes: int
    trace_count: int
    span_count: int
    is_exact: bool
    oldest_ns: int | None
    newest_ns: int | None
    spans_per_s: float
    partitions: int
    migrations: list[str]
    retention: RetentionState


class Storage(SpanWriter, TraceReader, StorageAdmin, RebuildableStorage, Protocol):
    """A whole backend, as `storage.factory.open_storage` returns it."""

    @property
    def dead_letters(self) -> DeadLetterStore:
        """What it refused."""
        ...

    @property
    def maintenance(self) -> Maintenance:
        """What keeps it in shape."""
        ...
