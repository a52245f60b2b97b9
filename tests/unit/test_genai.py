"""What spans say about models, tokens, cost and who ran them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msgtrace.model.batch import SpanBatch, TraceDelta
from msgtrace.model.genai import MAX_COST, MAX_TOKENS, NOT_MODEL_CALLS, GenAiFacts, read_facts
from msgtrace.model.text import MAX_LABEL_CHARS
from msgtrace.otlp.decode import decode_export_request

FIXTURES = Path(__file__).parents[1] / "fixtures"


def read(**attributes: Any) -> GenAiFacts:
    """Facts of attributes whose dots are written as two underscores."""
    facts = read_facts({name.replace("__", "."): value for name, value in attributes.items()})
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    "attributes", [{}, {"http.method": "GET"}, {"gen_ai.operation.name": "chat"}, {"": 1}]
)
def test_a_span_that_says_nothing_has_no_facts(attributes: dict[str, Any]) -> None:
    assert read_facts(attributes) is None


@pytest.mark.parametrize(
    ("attributes", "facts"),
    [
        (
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "m",
                "gen_ai.response.model": "m-2025",
                "gen_ai.usage.input_tokens": 200,
                "gen_ai.usage.output_tokens": 25,
                "gen_ai.usage.cost.amount": 0.5,
                "gen_ai.conversation.id": "c",
            },
            GenAiFacts(
                model="m-2025", input_tokens=200, output_tokens=25, cost=0.5, session_id="c"
            ),
        ),
        (
            {"gen_ai.usage.prompt_tokens": 33, "gen_ai.usage.completion_tokens": 11},
            GenAiFacts(input_tokens=33, output_tokens=11),
        ),
        (
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "m",
                "llm.token_count.prompt": 80,
                "llm.token_count.completion": 12,
                "llm.cost.total": 0.25,
                "llm.cost.prompt": 99.0,
                "session.id": "s",
                "user.id": "u",
            },
            GenAiFacts(
                model="m", input_tokens=80, output_tokens=12, cost=0.25, session_id="s", user_id="u"
            ),
        ),
        (
            {"embedding.model_name": "e", "openinference.span.kind": "EMBEDDING"},
            GenAiFacts(model="e"),
        ),
        (
            {
                "llm.request.type": "chat",
                "llm.usage.prompt_tokens": 10,
                "llm.usage.completion_tokens": 4,
                "traceloop.association.properties.session_id": "s",
                "traceloop.workflow.name": "w",
            },
            GenAiFacts(input_tokens=10, output_tokens=4, session_id="s", workflow_name="w"),
        ),
        (
            {
                "workflow.name": "w",
                "enduser.id": "u",
                "gen_ai.usage.cost.input_tokens": 0.25,
                "gen_ai.usage.cost.output_tokens": 0.5,
            },
            GenAiFacts(workflow_name="w", user_id="u", cost=0.75),
        ),
        ({"gen_ai.usage.cost.output_tokens": 0.5}, GenAiFacts(cost=0.5)),
        ({"msgflux.workflow.name": "w"}, GenAiFacts(workflow_name="w")),
    ],
    ids=[
        "current",
        "before 1.37",
        "openinference",
        "embedding",
        "openllmetry",
        "sdk",
        "part",
        "old",
    ],
)
def test_facts_are_read_from_every_convention(
    attributes: dict[str, Any], facts: GenAiFacts
) -> None:
    assert read_facts(attributes) == facts


def test_the_first_name_of_the_table_wins() -> None:
    facts = read(
        session__id="old",
        gen_ai__conversation__id="new",
        llm__model="old",
        gen_ai__request__model="new",
    )

    assert (facts.session_id, facts.model) == ("new", "new")


@pytest.mark.parametrize("operation", [*sorted(NOT_MODEL_CALLS), "Execute_Tool", "AGENT"])
def test_only_model_calls_have_model_tokens_and_cost(operation: str) -> None:
    facts = read(
        gen_ai__operation__name=operation,
        gen_ai__request__model="m",
        gen_ai__usage__input_tokens=1,
        gen_ai__usage__output_tokens=1,
        gen_ai__usage__cost__amount=1.0,
        session__id="s",
        user__id="u",
        workflow__name="w",
    )

    assert facts == GenAiFacts(session_id="s", user_id="u", workflow_name="w")


@pytest.mark.parametrize(
    ("stated", "counted"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (MAX_TOKENS, MAX_TOKENS),
        (MAX_TOKENS + 1, 0),
        (-1, 0),
        (True, 0),
        ("7", 0),
        (None, 0),
        ([7], 0),
        ({"$int": str(2**63 - 1)}, 0),
        ({"$double": "NaN"}, 0),
        (float("nan"), 0),
        (float("inf"), 0),
    ],
)
def test_token_counts_that_cannot_be_are_not_summed(stated: Any, counted: int) -> None:
    assert read(gen_ai__usage__input_tokens=stated).input_tokens == counted


@pytest.mark.parametrize(
    ("stated", "counted"),
    [
        (0.5, 0.5),
        (2, 2.0),
        (MAX_COST, MAX_COST),
        (MAX_COST * 2, 0.0),
        (-0.5, 0.0),
        ("0.5", 0.0),
        (True, 0.0),
        (float("nan"), 0.0),
        ({"$double": "Infinity"}, 0.0),
    ],
)
def test_costs_that_cannot_be_are_not_summed(stated: Any, counted: float) -> None:
    assert read(gen_ai__usage__cost__amount=stated).cost == counted
    assert read(gen_ai__usage__cost__input_tokens=stated).cost == counted


@pytest.mark.parametrize("stated", ["", 7, None, ["s"], {"a": "s"}, b"s"])
def test_names_that_are_no_text_are_left_out(stated: Any) -> None:
    facts = read(session__id=stated, user__id=stated, workflow__name=stated, llm__model=stated)

    assert facts == GenAiFacts()


def test_names_are_cut_and_escaped_as_they_are_stored() -> None:
    assert read(session__id="x\0" * 1_000).session_id == ("x␀0" * 1_000)[: MAX_LABEL_CHARS + 127]


# Real requests, by hand from the JSON next to each


def decoded(name: str) -> SpanBatch:
    return decode_export_request((FIXTURES / f"{name}.binpb").read_bytes())


def totals(batch: SpanBatch) -> dict[str, tuple[Any, ...]]:
    """What a list shows of each trace, by the beginning of its id."""

    def named(ranked: tuple[int, str] | None) -> str | None:
        return None if ranked is None else ranked[1]

    def row(delta: TraceDelta) -> tuple[Any, ...]:
        return (
            delta.span_count,
            delta.error_count,
            delta.input_tokens,
            delta.output_tokens,
            pytest.approx(delta.cost),
            sorted(delta.models),
            named(delta.session),
            named(delta.user),
            named(delta.workflow),
        )

    return {trace_id.hex()[:4]: row(delta) for (_, trace_id), delta in batch.traces.items()}


def test_totals_of_requests_in_five_conventions() -> None:
    assert totals(decoded("otelpy-genai-1")) == {
        # Two chats (200 and 220 in, 25 and 40 out, one with its cost) and an embedding (9 in); the
        # agent's own 420 and 65 say the chats' again.
        "25b9": (
            8,
            0,
            429,
            65,
            0.00131,
            ["gpt-5-2025-08-07", "text-embedding-3-small"],
            "conv-1",
            "user-42",
            None,
        ),
        "0f17": (1, 1, 0, 0, 0, ["gpt-5"], None, None, None),
        "1782": (1, 0, 33, 11, 0, ["claude-3-5-sonnet"], None, None, None),
        "b0a0": (4, 0, 80, 12, 0.00032, ["gpt-4o"], "sess-7", "user-42", None),
        "c298": (2, 0, 10, 4, 0, ["gpt-4o"], "sess-7", None, "trip"),
    }


def test_totals_of_an_agent_turn() -> None:
    # Five chats of 120 in and 31 out. Only the flow around them states a cost, in two parts.
    assert totals(decoded("msgflux-agent-1")) == {
        "48cc": (
            23,
            1,
            600,
            155,
            0.00043,
            ["gpt-5-mini-2025-08-07"],
            "sess-7",
            "user-42",
            "trip_planner",
        ),
    }


def test_totals_of_a_turn_whose_spans_are_not_nested() -> None:
    chat = (1, 0, 120, 31, 0, ["gpt-5-mini-2025-08-07"], None, None, None)
    other: tuple[Any, ...] = (1, 0, 0, 0, 0, [], None, None, None)

    assert totals(decoded("msgflux-stock-1")) == {
        "83ef": chat,
        "90e5": chat,
        "e722": other,
        "80d5": other,
        "e4eb": other,
        "cf19": other,
        "6e46": other,
        "0f24": other,
        "a035": other,
    }
