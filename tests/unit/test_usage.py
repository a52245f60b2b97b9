"""Of nested statements about tokens and cost the innermost counts, and nothing counts twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.model.span import SpanId
from msgtrace.model.usage import Usage, UsageTotals, count_once, sum_counted

IDS = [SpanId(bytes([n]) * 8) for n in range(1, 8)]
A, B, C, D = IDS[:4]


def usage(span_id: SpanId, **stated: Any) -> Usage:
    return Usage(**{"span_id": span_id, "start_time_ns": 0, "is_model_call": True, **stated})


def totals(parents: Mapping[SpanId, SpanId], *usages: Usage) -> UsageTotals:
    verdicts = count_once(usages, parents)
    return sum_counted(
        dataclasses.replace(each, counts_tokens=tokens, counts_cost=cost)
        for each, (tokens, cost) in zip(usages, verdicts, strict=True)
    )


def test_of_a_chat_around_a_chat_the_inner_one_counts() -> None:
    sums = totals(
        {B: A, A: D},
        usage(A, input_tokens=100, output_tokens=10, cost=0.5),
        usage(B, input_tokens=101, output_tokens=11, cost=0.25),
    )

    assert (sums.input_tokens, sums.output_tokens, sums.cost) == (101, 11, 0.25)


def test_spans_between_two_calls_do_not_hide_that_they_are_nested() -> None:
    sums = totals({C: B, B: A}, usage(A, input_tokens=100), usage(C, input_tokens=7))

    assert sums.input_tokens == 7


def test_calls_beside_each_other_all_count() -> None:
    sums = totals({A: D, B: D, C: D}, *(usage(each, input_tokens=5) for each in (A, B, C)))

    assert sums.input_tokens == 15


def test_an_inner_call_without_tokens_leaves_the_outer_ones_tokens() -> None:
    """A stream whose instrumentor saw no usage, inside an SDK's span that did."""
    sums = totals({B: A}, usage(A, input_tokens=100, estimate=0.5), usage(B, estimate=0.0))

    assert (sums.input_tokens, sums.cost) == (100, 0.5)


def test_a_cost_around_calls_that_state_none_replaces_their_estimates() -> None:
    flow = usage(A, is_model_call=False, cost=0.4)
    sums = totals(
        {B: A, C: A},
        flow,
        usage(B, input_tokens=1, estimate=1.0),
        usage(C, input_tokens=1, estimate=1.0),
        usage(D, input_tokens=1, estimate=2.0),
    )

    assert (sums.cost, sums.estimated_cost, sums.input_tokens) == (2.4, 2.0, 3)


def test_a_cost_around_calls_that_state_theirs_does_not_count() -> None:
    agent = usage(A, is_model_call=False, cost=9.0)
    sums = totals({B: A, C: A}, agent, usage(B, cost=0.25), usage(C, input_tokens=1, estimate=0.5))

    assert (sums.cost, sums.estimated_cost) == (0.75, 0.5)


def test_a_sent_cost_beneath_replaces_the_outer_calls_estimate() -> None:
    sums = totals({B: A}, usage(A, input_tokens=9, estimate=1.0), usage(B, cost=0.5))

    assert (sums.input_tokens, sums.cost, sums.estimated_cost) == (9, 0.5, 0.0)


@pytest.mark.parametrize("ring", [{A: A}, {A: B, B: A}, {A: B, B: C, C: A}])
def test_a_ring_of_parents_loses_nothing_that_stands_innermost(
    ring: dict[SpanId, SpanId],
) -> None:
    sums = totals(ring, *(usage(each, input_tokens=5, cost=1.0) for each in ring))

    assert (sums.input_tokens, sums.cost) == (5, 1.0)


stated = st.lists(
    st.builds(
        Usage,
        span_id=st.sampled_from(IDS),
        start_time_ns=st.just(0),
        is_model_call=st.booleans(),
        input_tokens=st.integers(0, 3),
        cost=st.none() | st.integers(0, 8).map(lambda n: n / 8),
        estimate=st.none() | st.integers(0, 8).map(lambda n: n / 8),
    ),
    max_size=7,
    unique_by=lambda each: each.span_id,
)
forests = st.dictionaries(st.integers(1, 6), st.integers(0, 5)).map(
    lambda links: {IDS[child]: IDS[min(parent, child - 1)] for child, parent in links.items()}
)


def ancestors(span_id: SpanId, parents: Mapping[SpanId, SpanId]) -> list[SpanId]:
    above = []
    while span_id in parents:
        span_id = parents[span_id]
        above.append(span_id)
    return above


@given(stated, forests)
def test_the_rule_is_what_it_says(usages: list[Usage], parents: dict[SpanId, SpanId]) -> None:
    """Against the definition in the module's docstring, pair by pair."""

    def is_beneath(lower: Usage, upper: Usage) -> bool:
        return upper.span_id in ancestors(lower.span_id, parents)

    def tokens_count(one: Usage) -> bool:
        return one.is_model_call and not any(
            each.has_tokens and is_beneath(each, one) for each in usages
        )

    def sent_counts(one: Usage) -> bool:
        return one.cost is not None and not any(
            each.cost is not None and is_beneath(each, one) for each in usages
        )

    def estimate_counts(one: Usage) -> bool:
        return (
            one.cost is None
            and one.estimate is not None
            and tokens_count(one)
            and not any(
                sent_counts(each) and (is_beneath(each, one) or is_beneath(one, each))
                for each in usages
            )
        )

    assert count_once(usages, parents) == [
        (tokens_count(each), sent_counts(each) or estimate_counts(each)) for each in usages
    ]
