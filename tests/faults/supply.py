"""Export requests that nobody has to remember: the number of a request says all that is in it.

A span's id holds who sent it, in which request, and its place there; everything else follows from
these. So millions of spans are compared with what was sent in the memory of some counters.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgtrace.model.span import SPAN_COLUMNS, Row
from msgtrace.otlp.decode import decode_export_request
from tests.batches import request, span

OPEN_TRACES = 12
"""Traces that get spans at the same time, from all senders."""

SPANS_PER_STEP = 120
"""After so many spans of one sender, at most, one of the open traces ends and another begins."""

LAST_EPOCH = 255
MOST_SPANS = 256
"""Of one request; its place takes one byte of a span's id."""

PADDING_BYTES = 16_000
"""Random text in each span of a padded request, to fill a disk."""

DAY_NS = 86_400 * 10**9

_SHAPES = 48
_PADDED_SHAPES = 4
_DAYS_AGO = (0, 0, 0, 0, 1, 40)
_ATTRIBUTES = SPAN_COLUMNS.index("attributes")

_SPAN_ID = struct.Struct(">BBIBB")
_IDS = struct.Struct(">16sH8s")
_BETWEEN_IDS = 0x1208  # field 2, 8 bytes
_TIMES = struct.Struct("<QBQ")
_BETWEEN_TIMES = 0x41  # field 8, fixed64
_MARK = 0xFEFDFCFB_00000000


class Origin(NamedTuple):
    """Which span it is: sender and request, numbered from 0, and its place in the request."""

    sender: int
    epoch: int
    serial: int
    is_padded: bool
    place: int

    @property
    def span_id(self) -> bytes:
        return _SPAN_ID.pack(
            self.sender + 1, self.epoch, self.serial, int(self.is_padded), self.place
        )


def origin_of(span_id: bytes) -> Origin:
    sender, epoch, serial, is_padded, place = _SPAN_ID.unpack(span_id)
    return Origin(sender - 1, epoch, serial, bool(is_padded), place)


@dataclass(frozen=True)
class _Shape:
    """A request but for its ids and times."""

    body: bytes
    id_offsets: list[int]
    time_offsets: list[int]
    durations_ns: list[int]
    rows: list[Row]
    """As they are to be stored, but for ids and times, and with `readable` attributes."""


class Supply:
    """The requests of all senders of one load.

    base_ns: about when its spans started.
    """

    def __init__(self, seed: int, most_spans: int, base_ns: int) -> None:
        assert most_spans <= MOST_SPANS
        chance = random.Random(f"{seed} shapes")
        self._seed = seed
        self._base_ns = base_ns
        self.most_spans = most_spans
        self._requests_per_step = max(1, SPANS_PER_STEP // most_spans)
        self._shapes = [_shape(chance, chance.randint(1, most_spans)) for _ in range(_SHAPES)]
        self._padded = [
            _shape(chance, min(6, most_spans), PADDING_BYTES) for _ in range(_PADDED_SHAPES)
        ]
        self._trace_id = functools.lru_cache(maxsize=4096)(self._new_trace_id)

    def body(self, sender: int, epoch: int, serial: int, *, is_padded: bool = False) -> bytes:
        """The request as it is sent."""
        shape = self._shape(sender, serial, is_padded)
        body = bytearray(shape.body)
        for place, duration_ns in enumerate(shape.durations_ns):
            origin = Origin(sender, epoch, serial, is_padded, place)
            start_ns = self.start_ns(origin)
            _IDS.pack_into(
                body,
                shape.id_offsets[place],
                self.trace_id(origin),
                _BETWEEN_IDS,
                origin.span_id,
            )
            _TIMES.pack_into(
                body, shape.time_offsets[place], start_ns, _BETWEEN_TIMES, start_ns + duration_ns
            )
        return bytes(body)

    def span_count(self, sender: int, serial: int, *, is_padded: bool) -> int:
        return len(self._shape(sender, serial, is_padded).rows)

    def trace_id(self, origin: Origin) -> bytes:
        """Begins with the epoch, so that the traces of one are neighbours."""
        step = origin.serial // self._requests_per_step
        return self._trace_id(origin.epoch, step + (origin.place + origin.serial) % OPEN_TRACES)

    def start_ns(self, origin: Origin) -> int:
        days_ago = _DAYS_AGO[(origin.place + origin.serial) % len(_DAYS_AGO)]
        since_ns = origin.serial * 1_000_000 + origin.place * 1_000 + origin.sender
        return self._base_ns + since_ns - days_ago * DAY_NS

    def row(self, origin: Origin) -> Row | None:
        """How the span must be stored, with `readable` attributes; None if it was never made."""
        rows = self._shape(origin.sender, origin.serial, origin.is_padded)
        if origin.place >= len(rows.rows):
            return None
        tenant_id, _, _, parent_id, _, _, *others = rows.rows[origin.place]
        start_ns = self.start_ns(origin)
        end_ns = start_ns + rows.durations_ns[origin.place]
        ids = tenant_id, self.trace_id(origin), origin.span_id, parent_id
        return (*ids, start_ns, end_ns, *others)

    def _shape(self, sender: int, serial: int, is_padded: bool) -> _Shape:
        shapes = self._padded if is_padded else self._shapes
        return shapes[(sender * 7 + serial) % len(shapes)]

    def _new_trace_id(self, epoch: int, number: int) -> bytes:
        name = f"{self._seed} {epoch} {number}".encode()
        return first_trace_id(epoch)[:4] + hashlib.blake2b(name, digest_size=12).digest()


def first_trace_id(epoch: int) -> bytes:
    """No trace of the epoch comes before it, none of an earlier epoch after it."""
    return struct.pack(">I12x", epoch + 1)


@functools.lru_cache(maxsize=100_000)
def readable(attributes: str | None) -> str:
    """The same text for the same attributes, however a database writes them."""
    return json.dumps(json.loads(attributes or "{}"), sort_keys=True)


def _shape(chance: random.Random, count: int, padding_bytes: int = 0) -> _Shape:
    durations_ns = [chance.randrange(10**9) for _ in range(count)]
    export = request(
        *(
            span(
                f"step {chance.randrange(50)}",
                trace_id=_id_mark(place),
                span_id=b"\1" * 8,
                parent=chance.randbytes(8) if chance.random() < 0.8 else None,
                start_ns=_MARK + place,
                duration_ns=duration_ns,
                status_code=chance.choice((0, 1, 2)),
                attributes=_attributes(chance) | _padding(chance, padding_bytes),
            )
            for place, duration_ns in enumerate(durations_ns)
        ),
        service=chance.choice(("shop", "bank", "post")),
    )
    body = export.SerializeToString()
    time_marks = [struct.pack("<Q", _MARK + place) for place in range(count)]
    # Decoded with times that a column can hold.
    for spans in export.resource_spans[0].scope_spans:
        for each in spans.spans:
            each.start_time_unix_nano = each.end_time_unix_nano = 1
    rows = decode_export_request(export.SerializeToString()).spans
    return _Shape(
        body=body,
        id_offsets=[_only(body, _id_mark(place)) for place in range(count)],
        time_offsets=[_only(body, mark) for mark in time_marks],
        durations_ns=durations_ns,
        rows=[
            (*row[:_ATTRIBUTES], readable(row[_ATTRIBUTES]), *row[_ATTRIBUTES + 1 :])
            for row in rows
        ],
    )


def _id_mark(place: int) -> bytes:
    return struct.pack(">QQ", _MARK, place)


def _only(body: bytes, mark: bytes) -> int:
    """Where the mark is."""
    assert body.count(mark) == 1
    return body.index(mark)


def _attributes(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.4:
        return {"step": chance.randrange(1000)}
    return {
        "gen_ai.operation.name": chance.choice(("chat", "embeddings", "execute_tool")),
        "gen_ai.request.model": f"model-{chance.randrange(5)}",
        "gen_ai.usage.input_tokens": chance.randrange(5000),
        "gen_ai.usage.output_tokens": chance.randrange(1000),
        "gen_ai.usage.cost.amount": chance.randrange(1000) / 1000,
        "session.id": f"session-{chance.randrange(5)}",
        "user.id": f"user-{chance.randrange(5)}",
        "workflow.name": f"workflow-{chance.randrange(5)}",
    }


def _padding(chance: random.Random, size: int) -> dict[str, str]:
    return {"padding": chance.randbytes(size // 2).hex()} if size else {}
