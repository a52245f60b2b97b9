"""The summary of a trace is the same however its spans are cut into batches and mixed up."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msgtrace.model.batch import (
    Rejection,
    SpanBatch,
    TraceDelta,
    TraceKey,
    merge_traces,
    summarize,
    take_spans,
)
from msgtrace.model.genai import GenAiFacts
from msgtrace.model.span import SPAN_COLUMNS, Row, SpanId

Stated = tuple[Row, GenAiFacts | None]

IDS = [bytes([n]) * 8 for n in range(1, 5)]
few_texts = st.sampled_from(["", "a", "b", "␀0", "é"])
# Sums of these are exact in any order; sums of others differ in their last bit.
exact_costs = st.integers(0, 2**20).map(lambda n: n / 1024)
times = st.one_of(st.integers(0, 4), st.sampled_from([0, 2**63 - 1]))


def make_row(**columns: Any) -> Row:
    defaults = dict.fromkeys(SPAN_COLUMNS) | {
        "tenant_id": 0,
        "trace_id": b"t" * 16,
        "span_id": IDS[0],
        "start_time_ns": 0,
        "end_time_ns": 0,
        "status_code": 0,
        "service_name": "s",
        "name": "n",
    }
    return tuple((defaults | columns).values())


rows = st.builds(
    make_row,
    tenant_id=st.sampled_from([0, 0, 0, 1]),
    trace_id=st.sampled_from([b"t" * 16, b"t" * 16, b"u" * 16]),
    span_id=st.sampled_from(IDS),
    parent_span_id=st.none() | st.sampled_from(IDS),
    start_time_ns=times,
    end_time_ns=times,
    status_code=st.integers(0, 3),
    service_name=few_texts,
    name=few_texts,
)
facts = st.builds(
    GenAiFacts,
    operation=st.none() | few_texts,
    is_model_call=st.booleans(),
    model=st.none() | few_texts,
    provider=st.none() | few_texts,
    input_tokens=st.integers(0, 2**31 - 1),
    output_tokens=st.integers(0, 2**31 - 1),
    cached_tokens=st.integers(0, 2**31 - 1),
    reasoning_tokens=st.integers(0, 2**31 - 1),
    cost=st.none() | exact_costs,
    estimate=st.none() | exact_costs,
    agent_name=st.none() | few_texts,
    tool_name=st.none() | few_texts,
    session_id=st.none() | few_texts,
    user_id=st.none() | few_texts,
    workflow_name=st.none() | few_texts,
)


def span_key(stated: Stated) -> tuple[Any, ...]:
    row = dict(zip(SPAN_COLUMNS, stated[0], strict=True))
    return tuple(row[name] for name in ("tenant_id", "trace_id", "span_id", "start_time_ns"))


# As storage sees to it: no span twice.
spans = st.lists(st.tuples(rows, st.none() | facts), max_size=12, unique_by=span_key)


def summary(stated: Sequence[Stated]) -> dict[TraceKey, TraceDelta]:
    genai = {index: said for index, (_, said) in enumerate(stated) if said is not None}
    return summarize([row for row, _ in stated], genai)


def batches_of(parts: list[list[Stated]]) -> list[SpanBatch]:
    return [SpanBatch(traces=summary(part)) for part in parts]


@st.composite
def shuffled_parts(draw: st.DrawFn) -> tuple[list[Stated], list[list[Stated]]]:
    """Spans, and the same ones in another order cut into any number of parts."""
    stated = draw(spans)
    parts: list[list[Stated]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for each in draw(st.permutations(stated)):
        draw(st.sampled_from(parts)).append(each)
    return stated, parts


BACKWARDS = [
    (make_row(span_id=IDS[0], end_time_ns=1), None),
    (make_row(span_id=IDS[1], start_time_ns=4, end_time_ns=2), None),
]


@given(shuffled_parts())
@example((BACKWARDS, [BACKWARDS[:1], BACKWARDS[1:]]))
def test_merging_parts_in_any_order_is_the_summary_of_all(
    case: tuple[list[Stated], list[list[Stated]]],
) -> None:
    stated, parts = case

    assert merge_traces(batches_of(parts)) == summary(stated)


@given(shuffled_parts())
def test_merging_is_associative(case: tuple[list[Stated], list[list[Stated]]]) -> None:
    stated, parts = case
    for key in summary(stated):
        deltas = [found[key] for part in parts if key in (found := summary(part))]
        left = functools.reduce(TraceDelta.merged_with, deltas)
        right = functools.reduce(lambda one, two: two.merged_with(one), reversed(deltas))
        assert left == right


@given(shuffled_parts())
def test_merging_leaves_its_inputs_as_they_were(
    case: tuple[list[Stated], list[list[Stated]]],
) -> None:
    batches = batches_of(case[1])
    before = copy.deepcopy(batches)

    merged = merge_traces([*batches, *batches])
    for delta in merged.values():
        delta.merged_with(delta)

    assert batches == before


@given(spans)
def test_a_trace_covers_all_its_spans(stated: list[Stated]) -> None:
    for key, delta in summary(stated).items():
        own = [
            dict(zip(SPAN_COLUMNS, row, strict=True))
            for row, _ in stated
            if (row[0], row[1]) == key
        ]
        starts = [row["start_time_ns"] for row in own]
        assert delta.start_time_ns == min(starts)
        assert delta.end_time_ns == max(starts + [row["end_time_ns"] for row in own])
        assert delta.span_count == len(own)
        assert delta.error_count == sum(row["status_code"] == 2 for row in own)
        assert delta.services == {row["service_name"] for row in own}


@given(spans)
def test_the_root_is_the_earliest_span_without_a_parent(stated: list[Stated]) -> None:
    for key, delta in summary(stated).items():
        own = [
            dict(zip(SPAN_COLUMNS, row, strict=True))
            for row, _ in stated
            if (row[0], row[1]) == key
        ]
        candidates = [row for row in own if row["parent_span_id"] is None] or own
        root = min(candidates, key=lambda row: (row["start_time_ns"], row["span_id"]))
        assert delta.root[0] == (root["parent_span_id"] is not None)
        assert delta.root[1:] == (root["start_time_ns"], root["span_id"])
        assert (delta.root_name, delta.root_service_name) == (root["name"], root["service_name"])


@pytest.mark.parametrize("field", ["session_id", "user_id", "workflow_name"])
def test_of_several_names_the_one_of_the_earliest_span_counts(field: str) -> None:
    said = [(5, "late"), (2, "b"), (2, "a"), (9, "latest")]
    stated = [
        (make_row(span_id=SpanId(IDS[n]), start_time_ns=start), GenAiFacts(**{field: name}))  # type: ignore[arg-type]  # a text
        for n, (start, name) in enumerate(said)
    ]

    [delta] = summary(stated).values()

    assert getattr(delta, field.partition("_")[0]) == (2, "a")


def test_no_spans_have_no_summary() -> None:
    assert summarize([], {}) == {}
    assert merge_traces([]) == {}
    assert merge_traces([SpanBatch()]) == {}


def test_every_field_of_a_delta_is_merged() -> None:
    """Merging with a delta that differs in one field alone changes the result, or its mirror."""
    [delta] = summary([(make_row(), GenAiFacts(model="m", session_id="s"))]).values()
    changes: dict[str, Any] = {
        "start_time_ns": -1,
        "end_time_ns": 9,
        "root": (False, -1, SpanId(b"")),
        "root_name": "x",
        "root_service_name": "x",
        "span_count": 2,
        "error_count": 2,
        "services": {"x"},
        "span_names": {("x", "x")},
        "workflow": (-1, "x"),
        "session": (-1, "x"),
        "user": (-1, "x"),
        "models": {"x"},
        "providers": {"x"},
        "operations": {"x"},
        "agents": {"x"},
        "tools": {"x"},
        "usage_count": 2,
        "input_tokens": 2,
        "output_tokens": 2,
        "cached_tokens": 2,
        "reasoning_tokens": 2,
        "cost": 2.0,
        "estimated_cost": 2.0,
    }
    assert changes.keys() == {each.name for each in dataclasses.fields(TraceDelta)}
    plain = delta.merged_with(delta)
    for name, value in changes.items():
        changed = dataclasses.replace(delta, **{name: value})
        results = [delta.merged_with(changed), changed.merged_with(delta)]
        assert any(result != plain for result in results), name


# Some spans of a batch


@st.composite
def some_of_a_batch(draw: st.DrawFn) -> tuple[SpanBatch, list[int]]:
    """A batch with several resources and scopes, and places in it."""
    stated = draw(spans)
    rows = [
        (*row[:6], draw(st.integers(1, 3)), draw(st.integers(1, 3)), *row[8:]) for row, _ in stated
    ]
    batch = SpanBatch(
        spans=rows,
        resources={n: (0, n, "resource") for n in (1, 2, 3)},
        scopes={n: (0, n, "scope") for n in (1, 2, 3)},
        genai={n: said for n, (_, said) in enumerate(stated) if said is not None},
        rejections={Rejection.INVALID_SPAN_ID: 1},
        body_bytes=1_000,
        payload=b"all",
        encoding="json",
    )
    return batch, [n for n in range(len(rows)) if draw(st.booleans())]


@given(some_of_a_batch())
def test_some_spans_are_taken_with_all_that_belongs_to_them(
    case: tuple[SpanBatch, list[int]],
) -> None:
    batch, places = case
    before = copy.deepcopy(batch)

    taken = take_spans(batch, places)

    assert taken.spans == [batch.spans[place] for place in places]
    assert taken.genai == {
        index: batch.genai[place] for index, place in enumerate(places) if place in batch.genai
    }
    assert taken.traces == summarize(taken.spans, taken.genai)
    assert taken.resources == {row[6]: batch.resources[row[6]] for row in taken.spans}
    assert taken.scopes == {row[7]: batch.scopes[row[7]] for row in taken.spans}
    assert taken.body_bytes <= batch.body_bytes
    assert (taken.rejections, taken.payload, taken.encoding) == ({}, b"", "")
    assert batch == before


@given(some_of_a_batch())
def test_what_is_taken_and_what_is_left_are_the_whole(case: tuple[SpanBatch, list[int]]) -> None:
    batch, places = case
    rest = [n for n in range(len(batch.spans)) if n not in places]

    parts = [take_spans(batch, places), take_spans(batch, rest)]

    assert merge_traces(parts) == summarize(batch.spans, batch.genai)
