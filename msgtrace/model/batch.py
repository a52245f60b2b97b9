"""What the decoder hands to storage: rows in table order, and what they add to their traces.

`SpanBatch` is the boundary behind which a faster decoder may replace the Python one (decision
0014). Nothing here knows a wire format or a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from msgtrace.model.genai import GenAiFacts
from msgtrace.model.span import SPAN_COLUMNS, STATUS_ERROR, Row, SpanId, TenantId, TraceId
from msgtrace.model.text import MAX_LABEL_CHARS
from msgtrace.model.units import NS_PER_DAY

_RESOURCE_ID = SPAN_COLUMNS.index("resource_id")
_SCOPE_ID = SPAN_COLUMNS.index("scope_id")

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
"""What stands before and behind the tuples of a binary COPY.

Source: PostgreSQL's documentation of COPY, "Binary Format".
"""

TraceKey = tuple[TenantId, TraceId]

SeenOperation = tuple[TenantId, str, str, int, int]
"""(tenant, service, span name, kind, day): some span of that name and kind starts on that day.

Names as they are stored, cut to MAX_LABEL_CHARS; days are counted from the epoch.
"""

RootRank = tuple[bool, int, SpanId]
"""(has a parent, start, span id).

The smallest of a trace is its root, or its best stand-in until the root arrives.
"""

Ranked = tuple[int, str]
"""(start of the span that said so, value).

The smallest wins, so that the order of arrival does not matter.
"""


@dataclass(slots=True, kw_only=True)
class TraceDelta:
    """What some spans add to the summary of their trace.

    span_names: the distinct (service, span name).
    Merging is commutative and associative: any order of arrival ends in the same summary. Counts
    and sums assume that each span is merged once; storage sees to that.
    Tokens and cost are sums of what spans state; storage takes back what nested spans state twice
    (`model.usage`).
    usage_count: the spans that state tokens or cost. estimated_cost: the part of cost that nobody
    sent.
    """

    start_time_ns: int
    end_time_ns: int
    root: RootRank
    root_name: str
    root_service_name: str
    span_count: int = 0
    error_count: int = 0
    services: set[str] = field(default_factory=set)
    span_names: set[tuple[str, str]] = field(default_factory=set)
    workflow: Ranked | None = None
    session: Ranked | None = None
    user: Ranked | None = None
    models: set[str] = field(default_factory=set)
    providers: set[str] = field(default_factory=set)
    operations: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)
    usage_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    estimated_cost: float = 0.0

    def merged_with(self, other: TraceDelta) -> TraceDelta:
        """What both add together; `other` must be of the same trace and speak of other spans."""
        first = min(self, other, key=lambda delta: delta.root)
        return TraceDelta(
            start_time_ns=min(self.start_time_ns, other.start_time_ns),
            end_time_ns=max(self.end_time_ns, other.end_time_ns),
            root=first.root,
            root_name=first.root_name,
            root_service_name=first.root_service_name,
            span_count=self.span_count + other.span_count,
            error_count=self.error_count + other.error_count,
            services=self.services | other.services,
            span_names=self.span_names | other.span_names,
            workflow=_first(self.workflow, other.workflow),
            session=_first(self.session, other.session),
            user=_first(self.user, other.user),
            models=self.models | other.models,
            providers=self.providers | other.providers,
            operations=self.operations | other.operations,
            agents=self.agents | other.agents,
            tools=self.tools | other.tools,
            usage_count=self.usage_count + other.usage_count,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost=self.cost + other.cost,
            estimated_cost=self.estimated_cost + other.estimated_cost,
        )

    def add_genai(self, facts: GenAiFacts, start_time_ns: int) -> None:
        """Add what one span says about models, tokens, cost and who ran it."""
        for stated, known in (
            (facts.model, self.models),
            (facts.provider, self.providers),
            (facts.operation, self.operations),
            (facts.agent_name, self.agents),
            (facts.tool_name, self.tools),
        ):
            if stated is not None:
                known.add(stated)
        if facts.states_usage:
            self._add_usage(facts)
        if facts.workflow_name is not None:
            self.workflow = _first(self.workflow, (start_time_ns, facts.workflow_name))
        if facts.session_id is not None:
            self.session = _first(self.session, (start_time_ns, facts.session_id))
        if facts.user_id is not None:
            self.user = _first(self.user, (start_time_ns, facts.user_id))

    def _add_usage(self, facts: GenAiFacts) -> None:
        estimate = (facts.estimate or 0.0) if facts.cost is None else 0.0
        self.usage_count += 1
        self.input_tokens += facts.input_tokens
        self.output_tokens += facts.output_tokens
        self.cached_tokens += facts.cached_tokens
        self.reasoning_tokens += facts.reasoning_tokens
        self.cost += (facts.cost or 0.0) + estimate
        self.estimated_cost += estimate


class TraceRows(Protocol):
    """What some batches add to their traces, as rows: each trace once, by tenant and trace id.

    The columns are those of `storage.summary.TRACE_COLUMNS`.
    """

    def __len__(self) -> int: ...
    def times(self) -> Sequence[tuple[int, int]]:
        """Start and end of each."""
        ...

    def to_copy(self) -> bytes:
        """As `SpanBatch.copy_rows` gives spans."""
        ...

    def to_tuples(self) -> Sequence[Row]:
        """As `storage.summary.trace_row` makes them, lists as JSON."""
        ...


class Rejection(Enum):
    """Why a span is left out, as its sender reads it."""

    INVALID_TRACE_ID = "trace_id is not 16 bytes or is all zero"
    INVALID_SPAN_ID = "span_id is not 8 bytes or is all zero"
    INVALID_PARENT_SPAN_ID = "parent_span_id is neither empty nor 8 bytes"
    KEPT_AS_DEAD_LETTER = "refused by the database, kept as dead letters"
    DEAD_LETTERS_FULL = "refused by the database, and not kept: dead letters are full"
    DEAD_LETTER_REFUSED = "refused by the database, and not kept: so is the dead letter"

    @property
    def label(self) -> str:
        """The value of the label `reason` in metrics."""
        return self.name.lower()


NOT_KEPT = (Rejection.DEAD_LETTERS_FULL, Rejection.DEAD_LETTER_REFUSED)
"""Of the spans that are left out for these, nothing is kept here: their sender must be told."""


@dataclass(slots=True, kw_only=True)
class SpanBatch:
    """The spans of one export request, ready to be written.

    spans: rows in SPAN_COLUMNS order. A decoder may hand over a sequence that makes its rows when
    they are first looked at; its length costs nothing.
    copy_rows: gives the same spans, in the same order, as tuples of PostgreSQL's binary COPY
    (COPY_HEADER and COPY_TRAILER left out), the columns in SPAN_COLUMNS order and in the types of
    the table. None if the decoder makes none: the rows are then encoded by the driver. Called at
    most once a write; a batch that is tried again is asked again.
    resources, scopes: rows by content hash, in RESOURCE_COLUMNS and SCOPE_COLUMNS order.
    genai: facts by index into `spans`, only for spans that state any. traces: the sum of `spans` by
    trace. operations: what the spans are called, and on which days.
    join_traces: sums up the traces of several batches, this one among them, ready to be written; it
    gives None if it cannot, because another decoder made one of them. None if the decoder has
    nothing of the kind: storage then makes the rows of `traces`.
    rejections: how many spans were left out, by what is wrong with them.
    body_bytes: size of the request, the measure of queue limits.
    payload, encoding: the request itself, inflated, and what it is written in (protobuf or json),
    for whoever must keep what cannot be stored now; without the values that were redacted.
    redacted: how many values were taken out, by what became of them (drop, hash).
    """

    spans: Sequence[Row] = field(default_factory=list)
    copy_rows: Callable[[], bytes] | None = field(default=None, compare=False)
    resources: dict[int, Row] = field(default_factory=dict)
    scopes: dict[int, Row] = field(default_factory=dict)
    genai: dict[int, GenAiFacts] = field(default_factory=dict)
    traces: Mapping[TraceKey, TraceDelta] = field(default_factory=dict)
    operations: set[SeenOperation] = field(default_factory=set)
    join_traces: Callable[[Sequence[SpanBatch]], TraceRows | None] | None = field(
        default=None, compare=False
    )
    rejections: dict[Rejection, int] = field(default_factory=dict)
    body_bytes: int = 0
    payload: bytes = b""
    encoding: str = ""
    redacted: Mapping[str, int] = field(default_factory=dict)

    def reject(self, rejection: Rejection, count: int) -> None:
        """Count so many spans as left out."""
        self.rejections[rejection] = self.rejections.get(rejection, 0) + count

    def add_rejections(self, other: SpanBatch) -> None:
        """Count also what `other` left out."""
        for rejection, count in other.rejections.items():
            self.reject(rejection, count)

    @property
    def rejected_spans(self) -> int:
        """How many spans were left out."""
        return sum(self.rejections.values())

    @property
    def rejection_message(self) -> str:
        """Why, for the sender; nothing of the spans is in it."""
        return "; ".join(
            f"{count} {'span' if count == 1 else 'spans'}: {rejection.value}"
            for rejection, count in self.rejections.items()
        )


def summarize(spans: Iterable[Row], genai: dict[int, GenAiFacts]) -> dict[TraceKey, TraceDelta]:
    """Sum rows (SPAN_COLUMNS order) by trace. `genai` maps a row's position to its facts.

    A trace ends where its last span ends or, lacking an end, starts; so no trace has a negative
    duration.
    """
    traces: dict[TraceKey, TraceDelta] = {}
    for index, row in enumerate(spans):
        (
            tenant_id,
            trace_id,
            span_id,
            parent_id,
            start_ns,
            end_ns,
            _,
            _,
            _,
            status,
            _,
            _,
            _,
            _,
            service,
            name,
        ) = row[:16]
        key = (tenant_id, trace_id)
        delta = traces.get(key)
        if delta is None:
            delta = traces[key] = TraceDelta(
                start_time_ns=start_ns,
                end_time_ns=end_ns if end_ns > start_ns else start_ns,
                root=(parent_id is not None, start_ns, span_id),
                root_name=name,
                root_service_name=service,
            )
        else:
            _extend(delta, span_id, parent_id, start_ns, end_ns, service, name)
        delta.span_count += 1
        if status == STATUS_ERROR:
            delta.error_count += 1
        delta.services.add(service)
        delta.span_names.add((service, name))
        if index in genai:
            delta.add_genai(genai[index], start_ns)
    return traces


def operations_of(spans: Iterable[Row]) -> set[SeenOperation]:
    """What rows (SPAN_COLUMNS order, at least up to the name) say of operations."""
    return {
        (row[0], row[14], row[15][:MAX_LABEL_CHARS], row[8], row[4] // NS_PER_DAY) for row in spans
    }


def take_spans(batch: SpanBatch, positions: Sequence[int]) -> SpanBatch:
    """A batch of some spans of another, by their places in it, with all that belongs to them.

    Nothing of `rejections`, `payload` and `encoding`, which speak of the whole request.
    """
    spans = [batch.spans[position] for position in positions]
    resource_ids = {row[_RESOURCE_ID] for row in spans}
    scope_ids = {row[_SCOPE_ID] for row in spans}
    genai = {
        place: batch.genai[position]
        for place, position in enumerate(positions)
        if position in batch.genai
    }
    return SpanBatch(
        spans=spans,
        resources={key: row for key, row in batch.resources.items() if key in resource_ids},
        scopes={key: row for key, row in batch.scopes.items() if key in scope_ids},
        genai=genai,
        traces=summarize(spans, genai),
        operations=operations_of(spans),
        body_bytes=batch.body_bytes * len(spans) // max(len(batch.spans), 1),
    )


def merge_traces(batches: Iterable[SpanBatch]) -> dict[TraceKey, TraceDelta]:
    """The traces of several batches summed up; the batches themselves stay as they are."""
    merged: dict[TraceKey, TraceDelta] = {}
    for batch in batches:
        for key, delta in batch.traces.items():
            known = merged.get(key)
            merged[key] = delta if known is None else known.merged_with(delta)
    return merged


def join_traces(batches: Sequence[SpanBatch]) -> TraceRows | dict[TraceKey, TraceDelta]:
    """The traces of several batches summed up: as rows, if their decoder makes any."""
    join = batches[0].join_traces if batches else None
    rows = None if join is None else join(batches)
    return merge_traces(batches) if rows is None else rows


def _extend(
    delta: TraceDelta,
    span_id: SpanId,
    parent_id: SpanId | None,
    start_ns: int,
    end_ns: int,
    service: str,
    name: str,
) -> None:
    if start_ns < delta.start_time_ns:
        delta.start_time_ns = start_ns
    last_ns = end_ns if end_ns > start_ns else start_ns
    if last_ns > delta.end_time_ns:
        delta.end_time_ns = last_ns
    has_parent = parent_id is not None
    if has_parent <= delta.root[0] and (rank := (has_parent, start_ns, span_id)) < delta.root:
        delta.root, delta.root_name, delta.root_service_name = rank, name, service


def _first(one: Ranked | None, other: Ranked | None) -> Ranked | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
