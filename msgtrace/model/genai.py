"""What a span says about generative AI, under whichever convention it was written.

`ALIASES` is the one place that knows attribute names; the first name that a span carries wins.
Sources: OpenTelemetry GenAI semantic conventions (current, and before 1.37), OpenInference,
OpenLLMetry, msgtrace-sdk.
Raw attributes are stored as they came; what is read here only feeds the trace summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgtrace.model.text import stored_label

ALIASES: dict[str, tuple[str, ...]] = {
    "operation": (
        "gen_ai.operation.name",
        "openinference.span.kind",
        "traceloop.span.kind",
        "module.type",
        "llm.request.type",
        "span.type",
    ),
    "model": (
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.response.model_name",
        "llm.model_name",
        "embedding.model_name",
        "llm.model",
    ),
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
    ),
    "cost": ("gen_ai.usage.cost.amount", "llm.cost.total"),
    "cost_parts": ("gen_ai.usage.cost.input_tokens", "gen_ai.usage.cost.output_tokens"),
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "traceloop.association.properties.session_id",
    ),
    "user_id": ("user.id", "enduser.id"),
    "workflow_name": ("workflow.name", "traceloop.workflow.name", "msgflux.workflow.name"),
}

NOT_MODEL_CALLS = frozenset(
    [
        "tool",
        "execute_tool",
        "agent",
        "invoke_agent",
        "create_agent",
        "invoke_workflow",
        "plan",
        "workflow",
        "task",
        "chain",
        "retriever",
        "retrieval",
        "reranker",
        "guardrail",
        "evaluator",
        "prompt",
        "flow",
        "module",
        "generator",
        "toollibrary",
        "localtool",
        "mcptool",
    ]
)
"""Operations whose spans may repeat the tokens and cost of the model calls beneath them.

These are not summed.
"""

STATING_KEYS = frozenset(
    name for field, names in ALIASES.items() if field != "operation" for name in names
)
"""A span with none of these keys states no facts."""

MAX_TOKENS = 2**31 - 1
MAX_COST = 1e9
"""What one span may state; anything else is a sender's mistake and is not summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenAiFacts:
    """What one span states. Tokens and cost are 0 where the span is no model call or says nothing.

    Texts are as they are stored (`model.text.stored_label`).
    """

    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    session_id: str | None = None
    user_id: str | None = None
    workflow_name: str | None = None


def read_facts(attributes: Mapping[str, Any]) -> GenAiFacts | None:
    """The facts that a span's attributes state, None if there are none.

    attributes: plain values; anything but str, int and float under a known key is ignored.
    """
    if STATING_KEYS.isdisjoint(attributes):
        return None
    is_model_call = str(_lookup(attributes, "operation")).lower() not in NOT_MODEL_CALLS
    return GenAiFacts(
        model=_text(attributes, "model") if is_model_call else None,
        input_tokens=_tokens(attributes, "input_tokens") if is_model_call else 0,
        output_tokens=_tokens(attributes, "output_tokens") if is_model_call else 0,
        cost=_cost(attributes) if is_model_call else 0.0,
        session_id=_text(attributes, "session_id"),
        user_id=_text(attributes, "user_id"),
        workflow_name=_text(attributes, "workflow_name"),
    )


def _lookup(attributes: Mapping[str, Any], field: str) -> Any:
    for name in ALIASES[field]:
        if name in attributes:
            return attributes[name]
    return None


def _text(attributes: Mapping[str, Any], field: str) -> str | None:
    value = _lookup(attributes, field)
    return stored_label(value) if isinstance(value, str) and value else None


def _tokens(attributes: Mapping[str, Any], field: str) -> int:
    value = _lookup(attributes, field)
    return int(value) if _is_number(value) and 0 <= value <= MAX_TOKENS else 0


def _cost(attributes: Mapping[str, Any]) -> float:
    total = _lookup(attributes, "cost")
    parts = (
        [total]
        if total is not None
        else [attributes.get(name, 0.0) for name in ALIASES["cost_parts"]]
    )
    return sum(float(part) for part in parts if _is_number(part) and 0 <= part <= MAX_COST)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
