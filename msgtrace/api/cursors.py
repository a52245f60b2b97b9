"""The text form of a cursor: base64url, meant for nobody to read, so that its contents may change.

Path: api.views writes it into a page, api.params reads it from the next request.
"""

from __future__ import annotations

import base64
import re
import struct

from msgtrace.model.search import Cursor
from msgtrace.model.span import TRACE_ID_BYTES, TraceId
from msgtrace.model.units import MAX_INT64

_FORM = struct.Struct(f">Q{TRACE_ID_BYTES}s")
_TEXT = re.compile(r"[A-Za-z0-9_-]{32}")


def format_cursor(cursor: Cursor) -> str:
    """32 characters: 24 bytes need no padding."""
    return base64.urlsafe_b64encode(_FORM.pack(cursor.start_time_ns, cursor.trace_id)).decode()


def parse_cursor(text: str) -> Cursor:
    """The inverse of `format_cursor`. Raises ValueError for what it did not write."""
    if not _TEXT.fullmatch(text):
        raise ValueError("not a cursor")
    start_time_ns, trace_id = _FORM.unpack(base64.urlsafe_b64decode(text))
    if start_time_ns > MAX_INT64:
        raise ValueError("not a cursor")
    return Cursor(start_time_ns, TraceId(trace_id))
