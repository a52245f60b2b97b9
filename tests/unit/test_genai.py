"""What spans say about models, tokens, cost and who ran them."""

from __future__ import annotations

from typing import Any

import pytest

from msgtrace.model.genai import (
    MAX_COST,
    MAX_TOKENS,
    MODEL_CALLS,
    OPERATIONS,
    GenAiFacts,
    read_facts,
)
from msgtrace.model.prices import BUILT_IN
from msgtrace.model.text import MAX_LABEL_CHARS


def read(**attributes: Any) -> GenAiFacts:
    """Facts of attributes whose dots are written as two underscores."""
    facts = read_facts({name.replace("__", "."): value for name, value in attributes.items()})
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    "attributes", [{}, {"http.method": "GET"}, {"span.type": "module"}, {"": 1}]
)
def test_a_span_that_says_nothing_has_no_facts(attributes: dict[str, Any]) -> None:
    assert read_facts(attributes) is None


@pytest.mark.parametrize(
    ("attributes", "facts"),
    [
        (
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "p",
                "gen_ai.request.model": "m",
                "gen_ai.response.model": "m-2025",
                "gen_ai.usage.input_tokens": 200,
                "gen_ai.usage.output_tokens": 25,
                "gen_ai.usage.cache_read.input_tokens": 128,
                "gen_ai.usage.reasoning.output_tokens": 12,
                "gen_ai.usage.cost.amount": 0.5,
                "gen_ai.usage.cost.currency": "usd",
                "gen_ai.conversation.id": "c",
                "gen_ai.agent.name": "a",
            },
            GenAiFacts(
                operation="inference",
                is_model_call=True,
                model="m-2025",
                provider="p",
                input_tokens=200,
                output_tokens=25,
                cached_tokens=128,
                reasoning_tokens=12,
                cost=0.5,
                currency="usd",
                session_id="c",
                agent_name="a",
            ),
        ),
        (
            {
                "gen_ai.system": "anthropic",
                "gen_ai.usage.prompt_tokens": 33,
                "gen_ai.usage.completion_tokens": 11,
            },
            GenAiFacts(
                operation="inference",
                is_model_call=True,
                provider="anthropic",
                input_tokens=33,
                output_tokens=11,
            ),
        ),
        (
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "m",
                "llm.provider": "azure",
                "llm.system": "openai",
                "llm.token_count.prompt": 80,
                "llm.token_count.completion": 12,
                "llm.token_count.prompt_details.cache_read": 64,
                "llm.token_count.completion_details.reasoning": 2,
                "llm.cost.total": 0.25,
                "llm.cost.prompt": 99.0,
                "session.id": "s",
                "user.id": "u",
            },
            GenAiFacts(
                operation="inference",
                is_model_call=True,
                model="m",
                provider="azure",
                input_tokens=80,
                output_tokens=12,
                cached_tokens=64,
                reasoning_tokens=2,
                cost=0.25,
                session_id="s",
                user_id="u",
            ),
        ),
        (
            {"embedding.model_name": "e", "openinference.span.kind": "EMBEDDING"},
            GenAiFacts(operation="embeddings", is_model_call=True, model="e"),
        ),
        (
            {
                "llm.request.type": "chat",
                "llm.usage.prompt_tokens": 10,
                "llm.usage.completion_tokens": 4,
                "traceloop.association.properties.session_id": "s",
                "traceloop.workflow.name": "w",
            },
            GenAiFacts(
                operation="inference",
                is_model_call=True,
                input_tokens=10,
                output_tokens=4,
                session_id="s",
                workflow_name="w",
            ),
        ),
        (
            {
                "span.type": "flow",
                "module.type": "tripplanner",
                "workflow.name": "w",
                "enduser.id": "u",
                "gen_ai.usage.cost.input_tokens": 0.25,
                "gen_ai.usage.cost.output_tokens": 0.5,
            },
            GenAiFacts(operation="invoke_workflow", workflow_name="w", user_id="u", cost=0.75),
        ),
        ({"gen_ai.usage.cost.output_tokens": 0.5}, GenAiFacts(cost=0.5)),
        ({"msgflux.workflow.name": "w"}, GenAiFacts(workflow_name="w")),
        (
            {"span.type": "flow", "module.type": "tripplanner", "module.name": "Trip Planner"},
            GenAiFacts(operation="invoke_workflow", workflow_name="Trip Planner"),
        ),
        (
            {"gen_ai.operation.name": "invoke_workflow", "gen_ai.agent.name": "trip"},
            GenAiFacts(operation="invoke_workflow", workflow_name="trip"),
        ),
        (
            {"span.type": "flow", "module.type": "agent", "module.name": "Weather Agent"},
            GenAiFacts(operation="invoke_agent", agent_name="Weather Agent"),
        ),
        (
            {"gen_ai.operation.name": "tool", "gen_ai.tool.name": "t", "module.type": "localtool"},
            GenAiFacts(operation="execute_tool", tool_name="t"),
        ),
        (
            {"openinference.span.kind": "TOOL", "tool.name": "t"},
            GenAiFacts(operation="execute_tool", tool_name="t"),
        ),
        (
            {"mcp.method.name": "tools/call", "gen_ai.tool.name": "t"},
            GenAiFacts(operation="execute_tool", tool_name="t"),
        ),
        (
            {"gen_ai.operation.name": "an operation of tomorrow", "gen_ai.request.model": "m"},
            GenAiFacts(operation="inference", is_model_call=True, model="m"),
        ),
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
        "flow",
        "workflow",
        "agent",
        "sdk tool",
        "openinference tool",
        "mcp tool",
        "unknown operation",
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


@pytest.mark.parametrize(
    "said", [*sorted(said for said, of in OPERATIONS.items() if of not in MODEL_CALLS), "AGENT"]
)
def test_only_model_calls_have_a_model_and_tokens(said: str) -> None:
    facts = read(
        gen_ai__operation__name=said,
        gen_ai__request__model="gpt-5",
        gen_ai__usage__input_tokens=1,
        gen_ai__usage__output_tokens=1,
        session__id="s",
        user__id="u",
        workflow__name="w",
    )

    assert facts == GenAiFacts(
        operation=OPERATIONS[said.lower()], session_id="s", user_id="u", workflow_name="w"
    )
    assert not facts.states_usage


def test_a_cost_may_be_stated_by_any_span() -> None:
    facts = read(gen_ai__operation__name="invoke_agent", gen_ai__usage__cost__amount=0.5)

    assert (facts.cost, facts.is_model_call, facts.states_usage) == (0.5, False, True)


def test_a_cost_in_another_currency_is_not_added_to_ours() -> None:
    said: dict[str, Any] = {
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 1_000_000,
        "gen_ai.usage.cost.amount": 7.0,
        "gen_ai.usage.cost.currency": "BRL",
    }

    facts = read_facts(said)

    assert facts is not None
    priced = facts.priced(BUILT_IN)
    assert (priced.cost, priced.estimate) == (None, 1.25)


def test_a_call_without_a_cost_is_estimated_and_one_with_a_cost_is_not() -> None:
    said: dict[str, Any] = {"gen_ai.request.model": "gpt-5", "gen_ai.usage.output_tokens": 100}

    estimated = read_facts(said)
    sent = read_facts(said | {"llm.cost.total": 0.0})

    assert estimated is not None
    assert sent is not None
    assert (estimated.cost, estimated.priced(BUILT_IN).estimate) == (None, 0.001)
    assert (sent.cost, sent.priced(BUILT_IN).estimate) == (0.0, None)


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
        (0, 0.0),
        (MAX_COST * 2, None),
        (-0.5, None),
        ("0.5", None),
        (True, None),
        (float("nan"), None),
        ({"$double": "Infinity"}, None),
    ],
)
def test_costs_that_cannot_be_are_no_costs(stated: Any, counted: float | None) -> None:
    assert read(gen_ai__usage__cost__amount=stated).cost == counted
    assert read(gen_ai__usage__cost__input_tokens=stated).cost == counted


@pytest.mark.parametrize("stated", ["", 7, None, ["s"], {"a": "s"}, b"s"])
def test_names_that_are_no_text_are_left_out(stated: Any) -> None:
    facts = read(session__id=stated, user__id=stated, workflow__name=stated, llm__model=stated)

    assert facts == GenAiFacts()


def test_names_are_cut_and_escaped_as_they_are_stored() -> None:
    assert read(session__id="x\0" * 1_000).session_id == ("x␀0" * 1_000)[: MAX_LABEL_CHARS + 127]
