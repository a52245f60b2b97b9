from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from msgtrace.api import views
from msgtrace.api.cursors import format_cursor
from msgtrace.api.replies import (
    ConversationView,
    MessageView,
    SessionPageView,
    SessionView,
    ToolCallView,
)
from msgtrace.model.search import Cursor, TracePage, TraceSearch
from msgtrace.model.span import JsonText, Span
from msgtrace.model.trace import Operation, SpanUsage, Trace, TraceStats, UsageSums
from msgtrace.query.tree import build_forest
from msgtrace.query.usage import with_usage
from tests.batches import NOON_NS, TRACE_A
from tests.stored import (
    span_id,
    stored_resource,
    stored_scope,
    stored_span,
    stored_summary,
)
from tests.work import calls_of

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"

SUMS = UsageSums(
    model_calls=1,
    input_tokens=3,
    output_tokens=4,
    cached_tokens=2,
    reasoning_tokens=1,
    cost=0.5,
    estimated_cost=0.25,
)

STATS = TraceStats(
    total_traces=2,
    traces_with_errors=1,
    total_spans=9,
    total_errors=1,
    input_tokens=3,
    output_tokens=4,
    cached_tokens=2,
    reasoning_tokens=1,
    cost=0.5,
    estimated_cost=0.25,
    by_model={None: SUMS},
    by_service={"shop": SUMS},
    by_day={"2026-03-01": SUMS},
    duration_p50_ns=1_500_000,
    duration_p95_ns=9_000_000,
    duration_p99_ns=9_000_000,
)


def page_of(*traces: Any, next_cursor: Cursor | None = None) -> TracePage:
    return TracePage(
        traces=list(traces), total=len(traces), is_total_exact=True, next_cursor=next_cursor
    )


def shown_trace(*spans: Span) -> dict[str, Any]:
    trace = Trace(summary=stored_summary(span_count=len(spans)), spans=list(spans))
    shown: dict[str, Any] = json.loads(views.trace(trace))
    return shown


def shown_span(span: Span) -> dict[str, Any]:
    shown: dict[str, Any] = shown_trace(span)["spans"][0]
    return shown


def documented_examples() -> list[Any]:
    """The JSON blocks of docs/api.md; names of other blocks (Summary, Span) become null."""
    blocks = re.findall(r"```json\n(.*?)```", API_PAGE.read_text(), re.DOTALL)
    return [
        json.loads(re.sub(r"(?<![\w\"/])(?:Summary|Span)(?![\w\"])", "null", b)) for b in blocks
    ]


def keys(shown: Any) -> Any:
    """The objects of a JSON value reduced to their keys, in order."""
    if isinstance(shown, dict):
        return [(key, keys(value)) for key, value in shown.items()]
    return [keys(value) for value in shown] if isinstance(shown, list) else None


def test_the_replies_have_the_documented_fields_in_the_documented_order() -> None:
    page, summary, span, tree, messages, sessions, stats = documented_examples()
    usage = SpanUsage(
        model="m",
        provider="p",
        input_tokens=3,
        output_tokens=4,
        cached_tokens=2,
        reasoning_tokens=1,
        cost=0.5,
        is_estimated=True,
        counts_tokens=True,
        counts_cost=True,
        counted=SUMS,
    )
    trace = Trace(
        summary=stored_summary(),
        spans=[stored_span()],
        usages={(stored_span().span_id, NOON_NS): usage},
    )
    shown_page = json.loads(views.trace_page(TraceSearch(), page_of(trace.summary)))
    shown_tree = json.loads(
        views.trace_tree(trace, with_usage(build_forest(trace.spans), trace.usages))
    )

    assert list(shown_page) == list(page)
    assert list(shown_page["traces"][0]) == list(summary)
    assert list(shown_span(trace.spans[0])) == list(span)
    for part in ("status", "resource", "scope"):
        assert list(shown_span(trace.spans[0])[part]) == list(span[part])
    assert list(shown_tree) == list(tree)
    assert list(shown_tree["roots"][0]) == list(tree["roots"][0])
    child = tree["roots"][0]["children"][0]
    assert keys(shown_tree["roots"][0]["usage"]) == keys(child["usage"])
    assert keys(shown_tree["roots"][0]["subtree"]) == keys(child["subtree"])
    assert list(messages) == list(ConversationView.__struct_fields__)
    assert list(messages["input"][0]) == list(MessageView.__struct_fields__)
    assert list(messages["tool_calls"][0]) == list(ToolCallView.__struct_fields__)
    assert list(sessions) == list(SessionPageView.__struct_fields__)
    assert list(sessions["sessions"][0]) == list(SessionView.__struct_fields__)
    assert keys(json.loads(views.stats(STATS))) == keys(stats)


def test_a_summary_shows_times_twice_and_the_duration_in_milliseconds() -> None:
    summary = stored_summary(start_time_ns=NOON_NS + 1, end_time_ns=NOON_NS + 12_500_001)

    [shown] = json.loads(views.trace_page(TraceSearch(), page_of(summary)))["traces"]

    assert shown["start_time"] == "2026-03-01T12:00:00.000000001Z"
    assert shown["start_time_unix_nano"] == "1772366400000000001"
    assert shown["end_time"] == "2026-03-01T12:00:00.012500001Z"
    assert shown["end_time_unix_nano"] == "1772366400012500001"
    assert shown["duration_ms"] == 12.5


def test_a_summary_without_a_root_has_a_null_root_span_id() -> None:
    summary = stored_summary(root_span_id=None)

    [shown] = json.loads(views.trace_page(TraceSearch(), page_of(summary)))["traces"]

    assert shown["root_span_id"] is None


def test_a_page_says_how_it_was_asked_for_and_where_the_next_begins() -> None:
    cursor = Cursor(NOON_NS, TRACE_A)

    shown = json.loads(
        views.trace_page(TraceSearch(limit=7, offset=3), page_of(next_cursor=cursor))
    )

    assert shown == {
        "traces": [],
        "total": 0,
        "total_is_exact": True,
        "limit": 7,
        "offset": 3,
        "next_cursor": format_cursor(cursor),
    }


def test_everything_of_a_span_is_shown() -> None:
    shown = shown_span(
        stored_span(
            span_id=span_id(2),
            parent_span_id=span_id(1),
            name="GET /cart",
            kind=2,
            start_time_ns=NOON_NS,
            end_time_ns=NOON_NS + 12_500_000,
            status_code=2,
            status_message="no stock",
            trace_state="a=b",
            flags=257,
            service_name="shop",
            attributes=JsonText('{"a":1}'),
            dropped_attributes_count=3,
            events=JsonText('[{"name":"exception"}]'),
            dropped_events_count=4,
            links=JsonText('[{"flags":1}]'),
            dropped_links_count=5,
            resource=stored_resource(
                attributes=JsonText('{"service.name":"shop"}'),
                dropped_attributes_count=6,
                entity_refs=JsonText('[{"type":"service"}]'),
                schema_url="https://resource",
            ),
            scope=stored_scope(
                name="shop.web",
                version="1",
                attributes=JsonText('{"b":2}'),
                dropped_attributes_count=7,
                schema_url="https://scope",
            ),
        )
    )

    assert shown == {
        "trace_id": TRACE_A.hex(),
        "span_id": "0000000000000002",
        "parent_span_id": "0000000000000001",
        "name": "GET /cart",
        "kind": "SERVER",
        "start_time": "2026-03-01T12:00:00.000000000Z",
        "end_time": "2026-03-01T12:00:00.012500000Z",
        "start_time_unix_nano": "1772366400000000000",
        "end_time_unix_nano": "1772366400012500000",
        "duration_ms": 12.5,
        "status": {"status_code": "ERROR", "description": "no stock"},
        "trace_state": "a=b",
        "flags": 257,
        "service_name": "shop",
        "attributes": {"a": 1},
        "dropped_attributes_count": 3,
        "events": [{"name": "exception"}],
        "dropped_events_count": 4,
        "links": [{"flags": 1}],
        "dropped_links_count": 5,
        "resource": {
            "attributes": {"service.name": "shop"},
            "dropped_attributes_count": 6,
            "entity_refs": [{"type": "service"}],
            "schema_url": "https://resource",
        },
        "scope": {
            "name": "shop.web",
            "version": "1",
            "attributes": {"b": 2},
            "dropped_attributes_count": 7,
            "schema_url": "https://scope",
        },
    }


@pytest.mark.parametrize(
    "text", ['{"n": 1.50, "n": 2}', '{"n":12345678901234567890123}', '{"s":"\\u0000ü"}']
)
def test_stored_json_goes_through_to_the_byte(text: str) -> None:
    span = stored_span(attributes=JsonText(text))

    content = views.trace(Trace(summary=stored_summary(), spans=[span]))

    assert b'"attributes":' + text.encode() in content


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "UNSPECIFIED"), (5, "CONSUMER"), (6, 6), (-1, -1), (2**31 - 1, 2**31 - 1)],
)
def test_a_kind_without_a_name_is_shown_as_its_number(number: int, shown: str | int) -> None:
    assert shown_span(stored_span(kind=number))["kind"] == shown


@pytest.mark.parametrize(("number", "shown"), [(0, "UNSET"), (1, "OK"), (3, 3), (-2, -2)])
def test_a_status_without_a_name_is_shown_as_its_number(number: int, shown: str | int) -> None:
    assert shown_span(stored_span(status_code=number))["status"]["status_code"] == shown


def test_a_span_without_an_end_has_a_negative_duration() -> None:
    shown = shown_span(stored_span(start_time_ns=2_000_000, end_time_ns=0))

    assert shown["duration_ms"] == -2.0
    assert shown["end_time"] == "1970-01-01T00:00:00.000000000Z"


def test_text_with_control_and_foreign_characters_survives() -> None:
    name = 'a\0"\\\n␀0 ü 𝄞'

    assert shown_span(stored_span(name=name))["name"] == name


def test_a_tree_nests_children_in_their_order() -> None:
    spans = [
        stored_span(span_id=span_id(1)),
        stored_span(span_id=span_id(2), parent_span_id=span_id(1)),
        stored_span(span_id=span_id(3), parent_span_id=span_id(1)),
        stored_span(span_id=span_id(4), parent_span_id=span_id(9)),
    ]
    trace = Trace(summary=stored_summary(), spans=spans)

    shown = json.loads(views.trace_tree(trace, with_usage(build_forest(spans), {})))

    assert (shown["trace_id"], shown["span_count"]) == (TRACE_A.hex(), 4)
    [root, orphan] = shown["roots"]
    assert (root["relation"], orphan["relation"]) == ("root", "orphan")
    assert [child["span"]["span_id"][-1] for child in root["children"]] == ["2", "3"]
    assert root["children"][0] == {
        "span": shown_span(spans[1]),
        "relation": "child",
        "operation": None,
        "usage": None,
        "subtree": dict.fromkeys(root["subtree"], 0),
        "folded_count": 0,
        "children": [],
    }


def chain(length: int) -> list[Span]:
    return [
        stored_span(
            span_id=span_id(number), parent_span_id=span_id(number - 1) if number > 1 else None
        )
        for number in range(1, length + 1)
    ]


def tree_of(spans: list[Span]) -> bytes:
    trace = Trace(summary=stored_summary(), spans=spans)
    return views.trace_tree(trace, with_usage(build_forest(spans), {}))


def test_the_work_for_a_tree_grows_as_its_one_chain() -> None:
    short, long = chain(1_000), chain(4_000)

    assert calls_of(lambda: tree_of(long)) < 4.5 * calls_of(lambda: tree_of(short))


def test_the_tree_of_fifty_thousand_spans_in_one_chain_is_written() -> None:
    content = tree_of(chain(50_000))

    assert content.count(b'"relation":') == 50_000
    assert json.loads(content)["span_count"] == 50_000


def test_stats_without_traces_have_null_percentiles_and_no_error_rate() -> None:
    nothing = TraceStats(
        total_traces=0,
        traces_with_errors=0,
        total_spans=0,
        total_errors=0,
        input_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        cost=0.0,
        estimated_cost=0.0,
        by_model={},
        by_service={},
        by_day={},
        duration_p50_ns=None,
        duration_p95_ns=None,
        duration_p99_ns=None,
    )

    shown = json.loads(views.stats(nothing))

    assert shown["error_rate"] == 0
    assert shown["duration_ms"] == {"p50": None, "p95": None, "p99": None}


def test_stats_show_a_rate_and_milliseconds() -> None:
    shown = json.loads(views.stats(STATS))

    assert shown["error_rate"] == 0.5
    assert shown["duration_ms"] == {"p50": 1.5, "p95": 9.0, "p99": 9.0}


def test_operations_name_their_kind() -> None:
    operations = [Operation(name="GET /", span_kind=2), Operation(name="GET /", span_kind=9)]

    assert json.loads(views.operations(operations)) == {
        "operations": [{"name": "GET /", "span_kind": "SERVER"}, {"name": "GET /", "span_kind": 9}]
    }
