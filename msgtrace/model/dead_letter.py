"""A request of which the database refused spans for their data: kept whole, to be replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NewType

from msgtrace.model.span import (
    SPAN_COLUMNS,
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    Row,
    SpanId,
    TenantId,
    TraceId,
)

LetterId = NewType("LetterId", bytes)

LETTER_ID_BYTES = 16

LETTER_OVERHEAD_BYTES = 512
"""What a letter counts for beside its request, so that many small ones are bounded as well."""

SpanIds = tuple[TraceId, SpanId]

Place = tuple[int, LetterId]
"""(time, letter id): where a letter stands in the list."""

_TRACE_ID = SPAN_COLUMNS.index("trace_id")
_SPAN_ID = SPAN_COLUMNS.index("span_id")

_SPAN_IDS_BYTES = TRACE_ID_BYTES + SPAN_ID_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary:
    """What a list shows of a letter: nothing that was in its spans.

    refused_at_ns: when the database refused it for the first time. span_count: the refused spans,
    not those of the request that are stored. reason: of the last refusal; it names no value.
    encoding: of the request, protobuf or json.
    """

    letter_id: LetterId
    tenant_id: TenantId
    refused_at_ns: int
    reason: str
    encoding: str
    span_count: int
    payload_bytes: int

    @property
    def place(self) -> Place:
        """Where the list goes on after it."""
        return self.refused_at_ns, self.letter_id


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A letter with all that is kept of it.

    payload: the request as it was sent, inflated. spans: the ids of those that were refused, in the
    order of the request. The other fields are those of DeadLetterSummary.
    """

    tenant_id: TenantId
    refused_at_ns: int
    reason: str
    encoding: str
    payload: bytes = field(repr=False)
    spans: Sequence[SpanIds]

    @property
    def letter_id(self) -> LetterId:
        """A hash of the request: sent again, it is the same letter."""
        head = f"{self.tenant_id} {self.encoding}\n".encode()
        return LetterId(blake2b(head + self.payload, digest_size=LETTER_ID_BYTES).digest())

    @property
    def summary(self) -> DeadLetterSummary:
        """What a list shows of it."""
        return DeadLetterSummary(
            letter_id=self.letter_id,
            tenant_id=self.tenant_id,
            refused_at_ns=self.refused_at_ns,
            reason=self.reason,
            encoding=self.encoding,
            span_count=len(self.spans),
            payload_bytes=len(self.payload),
        )

    @property
    def kept_bytes(self) -> int:
        """What it counts for against the limit of all letters."""
        return LETTER_OVERHEAD_BYTES + len(self.payload) + _SPAN_IDS_BYTES * len(self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterTotals:
    """All letters of a database, of every tenant. kept_bytes: as the limit counts them."""

    letter_count: int
    kept_bytes: int


def ids_of(row: Row) -> SpanIds:
    """Of a span, as rows hold them."""
    return row[_TRACE_ID], row[_SPAN_ID]


def join_span_ids(spans: Sequence[SpanIds]) -> bytes:
    """As they are stored: trace id and span id of each, one after the other."""
    return b"".join(part for ids in spans for part in ids)


def split_span_ids(stored: bytes) -> list[SpanIds]:
    """The inverse of `join_span_ids`."""
    return [
        (
            TraceId(stored[start : start + TRACE_ID_BYTES]),
            SpanId(stored[start + TRACE_ID_BYTES : start + _SPAN_IDS_BYTES]),
        )
        for start in range(0, len(stored), _SPAN_IDS_BYTES)
    ]
