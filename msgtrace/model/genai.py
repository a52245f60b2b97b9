"""What a span says about generative AI, under whichever convention it was written.

`ALIASES` is the one place that knows attribute names; the first name that a span carries wins.
Sources: OpenTelemetry GenAI semantic conventions (current, and before 1.37), OpenInference,
OpenLLMetry, msgtrace-sdk.
Raw attributes are stored as they came; what is read here only feeds the trace summary.
Not here: which of several nested statements counts (`model.usage`), prices (`model.prices`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from msgtrace.model.prices import PriceTable, Tokens
from msgtrace.model.text import stored_label

ALIASES_VERSION = 1
"""Goes up with every change of what is read here; `msgtrace-admin rebuild-summaries` then brings
the traces up to it that were summed up by an older one."""

ALIASES: dict[str, tuple[str, ...]] = {
    "operation": (
        "gen_ai.operation.name",
        "openinference.span.kind",
        "traceloop.span.kind",
        "module.type",
        "llm.request.type",
        "mcp.method.name",
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
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
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
    "cached_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "cost": ("gen_ai.usage.cost.amount", "llm.cost.total"),
    "cost_parts": ("gen_ai.usage.cost.input_tokens", "gen_ai.usage.cost.output_tokens"),
    "currency": ("gen_ai.usage.cost.currency",),
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "traceloop.association.properties.session_id",
    ),
    "user_id": ("user.id", "enduser.id"),
    "agent_name": ("gen_ai.agent.name", "agent.name"),
    "tool_name": ("gen_ai.tool.name", "tool.name"),
    "workflow_name": (
        "workflow.name",
        "gen_ai.workflow.name",
        "traceloop.workflow.name",
        "msgflux.workflow.name",
    ),
    "module_name": ("module.name",),
}

INFERENCE = "inference"
EMBEDDINGS = "embeddings"
RETRIEVAL = "retrieval"
TOOL = "execute_tool"
AGENT = "invoke_agent"
WORKFLOW = "invoke_workflow"
STEP = "step"
WRAPPER = "wrapper"
OTHER = "other"

_SAID: dict[str, tuple[str, ...]] = {
    INFERENCE: (
        "chat",
        "completion",
        "generate_content",
        "llm",
        "mediamaker",
        "predictor",
        "speaker",
        "text_completion",
        "transcriber",
    ),
    EMBEDDINGS: ("embedder", "embedding", "embeddings"),
    RETRIEVAL: ("retrieval", "retriever", "rerank", "reranker", "searcher"),
    TOOL: ("execute_tool", "localtool", "mcptool", "tool", "tools/call"),
    AGENT: ("agent", "create_agent", "invoke_agent"),
    WORKFLOW: ("flow", "invoke_workflow", "workflow"),
    STEP: ("chain", "module", "plan", "task"),
    WRAPPER: ("generator", "toollibrary"),
    OTHER: (
        "create_memory",
        "create_memory_store",
        "delete_memory",
        "delete_memory_store",
        "evaluator",
        "guardrail",
        "prompt",
        "search_memory",
        "update_memory",
        "upsert_memory",
    ),
}

OPERATIONS = {said: operation for operation, words in _SAID.items() for said in words}
"""What a span says of its operation, in lower case → the class that it is of."""

MODEL_CALLS = frozenset((INFERENCE, EMBEDDINGS))
"""Operations that use up tokens themselves.

All others may repeat the tokens of the model calls beneath them, and are not summed.
"""

STATING_KEYS = frozenset(
    name
    for field, names in ALIASES.items()
    if field not in ("operation", "module_name")
    for name in names
) | {"gen_ai.operation.name", "openinference.span.kind", "traceloop.span.kind", "module.type"}
"""A span with none of these keys states no facts."""

MAX_TOKENS = 2**31 - 1
MAX_COST = 1e9
"""What one span may state; anything else is a sender's mistake and is not summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenAiFacts:
    """What one span states. Texts are as they are stored (`model.text.stored_label`).

    operation: the class, None for none that is known. is_model_call: it uses up tokens itself;
    model, provider and tokens are of such a span only.
    input_tokens include the cached and the cache_write ones, output_tokens the reasoning ones.
    cost: as sent, by any span, in `currency` if that is stated; None if nothing is. estimate: of a
    model call without a cost, None until `priced` and for a model of no known price.
    """

    operation: str | None = None
    is_model_call: bool = False
    model: str | None = None
    provider: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    currency: str | None = None
    estimate: float | None = None
    session_id: str | None = None
    user_id: str | None = None
    agent_name: str | None = None
    tool_name: str | None = None
    workflow_name: str | None = None

    @property
    def states_usage(self) -> bool:
        """Whether tokens, cost or a call of a model are to be counted."""
        return self.is_model_call or self.cost is not None

    def priced(self, prices: PriceTable) -> GenAiFacts:
        """The same with an estimate where no cost is stated that can be added to the others.

        A cost in another currency than the prices' cannot.
        """
        is_foreign = self.currency is not None and self.currency.upper() != prices.currency
        cost = None if is_foreign else self.cost
        if not self.is_model_call:
            return replace(self, cost=cost) if is_foreign else self
        if cost is not None:
            return self
        tokens = Tokens(
            input=self.input_tokens,
            output=self.output_tokens,
            cached=self.cached_tokens,
            cache_write=self.cache_write_tokens,
        )
        return replace(self, cost=None, estimate=prices.estimate(self.model, tokens))


def read_facts(attributes: Mapping[str, Any]) -> GenAiFacts | None:
    """The facts that a span's attributes state, None if there are none.

    attributes: plain values; anything but str, int and float under a known key is ignored.
    """
    if STATING_KEYS.isdisjoint(attributes):
        return None
    operation = operation_of(attributes)
    read = _Reader(attributes)
    facts = GenAiFacts(
        operation=operation,
        cost=read.cost(),
        currency=read.label("currency"),
        session_id=read.label("session_id"),
        user_id=read.label("user_id"),
        agent_name=_agent_name(read, operation),
        tool_name=read.label("tool_name") if operation == TOOL else None,
        workflow_name=_workflow_name(read, operation),
    )
    model = read.label("model")
    input_tokens, output_tokens = read.count("input_tokens"), read.count("output_tokens")
    if operation is None:  # one that is not known, or none: it may state what only a call has
        is_model_call = model is not None or bool(input_tokens or output_tokens)
    else:
        is_model_call = operation in MODEL_CALLS
    if not is_model_call:
        return facts
    return replace(
        facts,
        operation=operation or INFERENCE,
        is_model_call=True,
        model=model,
        provider=read.label("provider"),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=read.count("cached_tokens"),
        cache_write_tokens=read.count("cache_write_tokens"),
        reasoning_tokens=read.count("reasoning_tokens"),
    )


def operation_of(attributes: Mapping[str, Any]) -> str | None:
    """The class of a span's operation: the first word that is known, under any alias."""
    for name in ALIASES["operation"]:
        said = attributes.get(name)
        if isinstance(said, str) and (operation := OPERATIONS.get(said.lower())):
            return operation
    return None


def lookup(attributes: Mapping[str, Any], field: str) -> Any:
    """The value under the first alias of a field that the span carries."""
    for name in ALIASES[field]:
        if name in attributes:
            return attributes[name]
    return None


def _agent_name(facts: _Reader, operation: str | None) -> str | None:
    if operation == WORKFLOW:  # there it is the workflow's name since semantic conventions 1.42
        return None
    return facts.label("agent_name") or (facts.label("module_name") if operation == AGENT else None)


def _workflow_name(facts: _Reader, operation: str | None) -> str | None:
    named = facts.label("workflow_name")
    if named is None and operation == WORKFLOW:
        return facts.label("agent_name") or facts.label("module_name")
    return named


class _Reader:
    """Reads one span's attributes by the fields of the table."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._attributes = attributes

    def text(self, field: str) -> str | None:
        value = lookup(self._attributes, field)
        return value if isinstance(value, str) and value else None

    def label(self, field: str) -> str | None:
        text = self.text(field)
        return None if text is None else stored_label(text)

    def count(self, field: str) -> int:
        value = lookup(self._attributes, field)
        return int(value) if _is_number(value) and 0 <= value <= MAX_TOKENS else 0

    def cost(self) -> float | None:
        """The stated cost, None for none.

        The parts of msgtrace-sdk are money, in spite of their names.
        """
        total = lookup(self._attributes, "cost")
        parts = (
            [self._attributes.get(name) for name in ALIASES["cost_parts"]]
            if total is None
            else [total]
        )
        good = [float(part) for part in parts if _is_number(part) and 0 <= part <= MAX_COST]
        return sum(good) if good else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
