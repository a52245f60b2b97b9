"""The spans that the senders make, and what the API must show of them.

They are the same in every language, but for what a language or its SDK cannot say or says in its
own way; each of these differences is named here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SpanIds = Mapping[str, tuple[str, str]]
"""Key of a span → its trace id and span id in hex, as its SDK has made them."""

REMOTE_SPAN_ID = "00f067aa0ba902b7"
REMOTE_STATE = "vendor=a,other@tenant=b/c"

_START_NS = 1_772_366_400 * 10**9
_START_SECOND = "2026-03-01T12:00:00"

_SAMPLED = 0x01
_RANDOM = 0x02
"""Of W3C Trace Context level 2: the trace id is random. Java alone says so of its own traces."""
_KNOWS_IS_REMOTE = 0x100
_IS_REMOTE = 0x200

_VALUES: dict[str, Any] = {
    "string": "GET /cart",
    "string.empty": "",
    "string.nul": "before\0after",
    "string.nul.mark": "␀ ␀0 ␀␀ \0␀",
    "string.controls": "\x01\x1b[31m\x7f\u2028",
    "string.scripts": "žluťoučký 数 𐍈 👩‍👩‍👧",
    "string.long": "x" * 5000,
    "key with \0 and ␀": "kept",
    "true": True,
    "false": False,
    "int": 42,
    "int.zero": 0,
    "int.negative": -7,
    "int.last_exact": 2**53 - 1,
    "double": 0.1,
    "double.greatest": 1.7976931348623157e308,
    "double.least": 5e-324,
    "double.nan": math.nan,
    "double.infinity": math.inf,
    "double.negative_infinity": -math.inf,
    "array.empty": [],
    "array.strings": ["a", "", "c"],
    "array.booleans": [True, False],
    "array.ints": [1, -7],
    "array.doubles": [1.5, 0.1],
}

_TYPED_VALUES: dict[str, Any] = {
    "int.least": -(2**63),
    "int.greatest": 2**63 - 1,
    "double.whole": 3.0,
    "double.negative_zero": -0.0,
    "bytes": b"\0\1\xfe\xff",
    "array.mixed": ["a", 1, 1.0, True],
    "map": {"a": {"b": b"\0"}, "n": 1},
}
"""What Go and Java can say besides."""

_JS_VALUES: dict[str, Any] = {
    "number.whole": 3,
    "number.first_inexact": 2**53,
    "number.beyond_int64": 1e20,
    "number.far_beyond_int64": -1e21,
    "array.holes": ["a", None, "c"],
}
"""JavaScript's numbers are integers whenever they are whole; in JSON even beyond int64."""

_NOT_IN_JSON = {"double.nan": None, "double.infinity": None, "double.negative_infinity": None}
"""JSON.stringify makes null of these."""

_GO_SCOPE_ATTRIBUTES = {"tier": "web", "weight": 2}
"""The tracers of the others take no attributes."""

_KEEPS_THE_LAST = {"js", "go"}
"""Where an event or a link beyond the limit replaces the oldest one; Java keeps the first."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One run of a sender: how it was called, and the ids that it reported."""

    language: str
    wire: str
    service_name: str
    remote_trace_id: str
    ids: SpanIds


def expected_spans(sent: Sent) -> list[dict[str, Any]]:
    """What docs/api.md promises for every span, attribute values as in Python."""
    scope_attributes = _GO_SCOPE_ATTRIBUTES if sent.language == "go" else {}
    web = _scope("shop.web", "1.2.3", "https://example.com/scope/2", scope_attributes)
    stock = _scope("shop.stock")
    return [
        _span(
            *(sent, "root", "GET /cart", "SERVER", (1, 12_500_001), web),
            attributes=_values(sent),
            status={"status_code": "OK", "description": ""},
        ),
        _span(
            *(sent, "call", "call stock", "CLIENT", (1_000_000, 5_000_000), web),
            parent="root",
            events=[
                _event("empty", 1_500_001),
                _event("retry", 2_000_003, {"attempt": 2, "wait": 0.5, "\0": "\0"}),
            ],
            links=[_link(*sent.ids["root"], {"why": "retry", "n": 1}, flags=_own_flags(sent))],
        ),
        _span(
            *(sent, "reserve", "reserve", "CONSUMER", (3_000_000, 4_000_000), stock),
            parent="call",
        ),
        _span(
            *(sent, "odd", "\0 ␀ 数 👩‍👧", "INTERNAL", (3_000_007, 3_000_007), stock),
            parent="reserve",
        ),
        _span(
            *(sent, "notify", "notify", "PRODUCER", (6_000_000, 7_000_000), stock),
            parent="root",
            events=[_event("exception", 6_000_001, {"exception.message": "no \0 address"})],
            status={"status_code": "ERROR", "description": "no \0 address"},
        ),
        _span(
            *(sent, "worker", "worker", "CONSUMER", (0, 1), web),
            parent_span_id=REMOTE_SPAN_ID,
            trace_state=REMOTE_STATE,
            flags=_SAMPLED | _KNOWS_IS_REMOTE | _IS_REMOTE,
            links=[
                _link(
                    *(sent.remote_trace_id, REMOTE_SPAN_ID, {}),
                    # Go leaves it out of links.
                    trace_state="" if sent.language == "go" else REMOTE_STATE,
                    flags=_SAMPLED | _IS_REMOTE,
                )
            ],
        ),
        _limited(sent),
    ]


def _limited(sent: Sent) -> dict[str, Any]:
    """A span that was cut down to one attribute, one event and one link with one attribute each."""
    keeps_last = sent.language in _KEEPS_THE_LAST
    number, event_name = (2, "second") if keeps_last else (1, "first")
    event = _event(event_name, number, {"a": 1}) | {"dropped_attributes_count": 1}
    link = _link(f"{number:032x}", f"{number:016x}", {"a": 1}, flags=0)
    return _span(
        *(sent, "limited", "limited", "INTERNAL", (0, 3), _scope("cut", "0")),
        service_name=f"{sent.service_name}-cut",
        resource=_resource({"service.name": f"{sent.service_name}-cut"}),
        attributes={"a": 1},
        dropped_attributes_count=2,
        events=[event],
        dropped_events_count=1,
        links=[link | {"dropped_attributes_count": 1}],
        dropped_links_count=1,
    )


def _values(sent: Sent) -> dict[str, Any]:
    values = _VALUES | (_JS_VALUES if sent.language == "js" else _TYPED_VALUES)
    return values | (_NOT_IN_JSON if sent.wire == "http-json" else {})


def _span(
    sent: Sent,
    key: str,
    name: str,
    kind: str,
    times: tuple[int, int],
    scope: dict[str, Any],
    *,
    parent: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A span that is empty but for what is given. times: start and end, nanoseconds past noon."""
    start, end = times
    trace_id, span_id = sent.ids[key]
    shop = {"cores": 8, "load": 0.5, "enabled": True, "tags": ["x", "y"]}
    return {
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_span_id": None if parent is None else sent.ids[parent][1],
        "name": name,
        "kind": kind,
        "start_time": f"{_START_SECOND}.{start:09d}Z",
        "end_time": f"{_START_SECOND}.{end:09d}Z",
        "start_time_unix_nano": str(_START_NS + start),
        "end_time_unix_nano": str(_START_NS + end),
        "duration_ms": (end - start) / 1_000_000,
        "status": {"status_code": "UNSET", "description": ""},
        "trace_state": "",
        "flags": _own_flags(sent) | _KNOWS_IS_REMOTE,
        "service_name": sent.service_name,
        "attributes": {},
        "dropped_attributes_count": 0,
        "events": [],
        "dropped_events_count": 0,
        "links": [],
        "dropped_links_count": 0,
        "resource": _resource(
            {"service.name": sent.service_name, **shop}, "https://example.com/resource/1"
        ),
        "scope": scope,
    } | fields


def _own_flags(sent: Sent) -> int:
    return _SAMPLED | (_RANDOM if sent.language == "java" else 0)


def _resource(attributes: dict[str, Any], schema_url: str = "") -> dict[str, Any]:
    return {
        "attributes": attributes,
        "dropped_attributes_count": 0,
        "entity_refs": [],
        "schema_url": schema_url,
    }


def _scope(
    name: str, version: str = "", schema_url: str = "", attributes: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "attributes": attributes or {},
        "dropped_attributes_count": 0,
        "schema_url": schema_url,
    }


def _event(name: str, time_ns: int, attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "time_unix_nano": str(_START_NS + time_ns),
        "name": name,
        "attributes": attributes or {},
        "dropped_attributes_count": 0,
    }


def _link(
    trace_id: str, span_id: str, attributes: dict[str, Any], *, flags: int, trace_state: str = ""
) -> dict[str, Any]:
    return {
        "trace_id": trace_id,
        "span_id": span_id,
        "trace_state": trace_state,
        "attributes": attributes,
        "dropped_attributes_count": 0,
        "flags": flags | _KNOWS_IS_REMOTE,
    }
