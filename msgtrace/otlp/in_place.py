"""The parts of a large span where they lie in the request, instead of copies.

Path: otlp.decode → [otlp.in_place] → otlp.rows. protobuf copies a request when it parses it, and a
part once more when it is looked at. With the texts that are made of it, one attribute of 64 MiB
would be in memory seven times.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

LARGE_REQUEST_BYTES = 1024 * 1024
"""A larger request, of those that are decoded at once, is mostly one span."""

LONG_PART_BYTES = 64 * 1024
"""Shorter parts are not worth the search."""

_ANCHOR_BYTES = 64
_MOST_TRIES = 16

_PARTS = ("attributes", "events", "links")
_SCALARS = (
    "trace_id",
    "span_id",
    "trace_state",
    "parent_span_id",
    "name",
    "kind",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
    "flags",
)


def in_place(request: Any, body: bytes) -> Any:
    """A ShallowExportRequest, parsed from `body`, as an object with the same fields.

    Long attributes, events and links are views of `body`. Nothing of `request` is kept.
    """
    finder = _Finder(body)
    return SimpleNamespace(
        resource_spans=[
            SimpleNamespace(
                resource=list(outer.resource),
                schema_url=outer.schema_url,
                scope_spans=[
                    SimpleNamespace(
                        scope=list(inner.scope),
                        schema_url=inner.schema_url,
                        spans=[_span(span, finder) for span in inner.spans],
                    )
                    for inner in outer.scope_spans
                ],
            )
            for outer in request.resource_spans
        ]
    )


def _span(span: Any, finder: _Finder) -> SimpleNamespace:
    fields = {name: getattr(span, name) for name in _SCALARS}
    parts = {name: finder.views(getattr(span, name)) for name in _PARTS}
    status = SimpleNamespace(message=span.status.message, code=span.status.code)
    return SimpleNamespace(status=status, **fields, **parts)


class _Finder:
    """Finds parts in a request, in linear time: it gives up where the same bytes come too often."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._view = memoryview(body)
        self._has_given_up = False

    def views(self, parts: Iterable[bytes]) -> list[bytes | memoryview]:
        """The parts, which lie in the request in this order; long ones as views."""
        found: list[bytes | memoryview] = []
        position = 0
        for part in parts:
            start = -1
            if len(part) >= LONG_PART_BYTES and not self._has_given_up:
                start = self._find(part, position)
                self._has_given_up = start < 0
            if start < 0:
                found.append(part)
            else:
                position = start + len(part)
                found.append(self._view[start:position])
        return found

    def _find(self, part: bytes, position: int) -> int:
        anchor = part[:_ANCHOR_BYTES]
        for _ in range(_MOST_TRIES):
            position = self._body.find(anchor, position)
            if position < 0 or self._body.startswith(part, position):
                break
            position += 1
        else:
            return -1
        return position
