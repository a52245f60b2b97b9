"""The tree of an agent's run: what each subtree used, and wrappers folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msgtrace.model.search import TraceSearch
from msgtrace.model.span import DEFAULT_TENANT, STATUS_ERROR, JsonText
from msgtrace.model.trace import Trace
from msgtrace.otlp.decode import decode_export_request
from msgtrace.query.tree import build_forest
from msgtrace.query.usage import UsageNode, every_node, fold_wrappers, with_usage
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.stored import span_id, stored_scope, stored_span

FIXTURES = Path(__file__).parents[1] / "fixtures"

WRAPPER = JsonText('{"module.type": "generator"}')


async def stored_fixture(tmp_path: Path, name: str, trace: str) -> Trace:
    """A trace of a captured request, by the beginning of its id."""
    request = (FIXTURES / f"{name}.binpb").read_bytes()
    async with open_storage(Settings(database_url=f"sqlite:///{tmp_path / 'x.db'}")) as storage:
        await storage.write_spans([decode_export_request(request)])
        page = await storage.find_traces(DEFAULT_TENANT, TraceSearch())
        [trace_id] = [t.trace_id for t in page.traces if t.trace_id.hex().startswith(trace)]
        stored = await storage.get_trace(DEFAULT_TENANT, trace_id)
    assert stored is not None
    return stored


def drawn(roots: list[UsageNode], depth: int = 0) -> list[str]:
    lines = []
    for node in roots:
        sums = node.subtree
        tokens = f" {sums.input_tokens}/{sums.output_tokens}" if sums.input_tokens else ""
        folded = f" +{node.folded_count}" if node.folded_count else ""
        lines.append(f"{'  ' * depth}{node.span.name}{tokens}{folded}")
        lines += drawn(node.children, depth + 1)
    return lines


async def test_the_wrappers_of_an_agent_turn_are_folded(tmp_path: Path) -> None:
    trace = await stored_fixture(tmp_path, "msgflux-agent-1", "48cc")
    roots = with_usage(build_forest(trace.spans), trace.usages)
    assert len(list(every_node(roots))) == 23

    assert drawn(fold_wrappers(roots)) == [
        "Trip Planner 600/155",
        "  Travel Agent 600/155",
        "    openai.chat 120/31 +1",
        "    Get Weather +2",
        "    Add +2",
        "    openai.chat 120/31 +1",
        "    Flaky Lookup +2",
        "    openai.chat 120/31 +1",
        "    Translator 120/31 +2",
        "      Translator 120/31",
        "        openai.chat 120/31 +1",
        "    openai.chat 120/31 +1",
    ]


async def test_subtrees_sum_to_the_trace(tmp_path: Path) -> None:
    trace = await stored_fixture(tmp_path, "otelpy-genai-1", "25b9")
    [root] = with_usage(build_forest(trace.spans), trace.usages)

    sums, summary = root.subtree, trace.summary
    assert (sums.input_tokens, sums.output_tokens) == (429, 65)
    assert (sums.cached_tokens, sums.reasoning_tokens) == (128, 12)
    assert sums.cost == pytest.approx(summary.cost)
    assert sums.model_calls == 3
    assert root.operation == "invoke_workflow"


def tree(*spans: Any) -> list[UsageNode]:
    return with_usage(build_forest(spans), {})


def test_a_wrapper_without_children_stays() -> None:
    assert drawn(fold_wrappers(tree(stored_span(name="Generator", attributes=WRAPPER)))) == [
        "Generator"
    ]


def test_a_failed_wrapper_stays_unless_a_span_beneath_it_failed() -> None:
    wrapper = stored_span(name="Generator", attributes=WRAPPER, status_code=STATUS_ERROR)
    child = {"span_id": span_id(2), "parent_span_id": span_id(1), "name": "chat"}

    stays = fold_wrappers(tree(wrapper, stored_span(**child)))
    folds = fold_wrappers(tree(wrapper, stored_span(**child, status_code=STATUS_ERROR)))

    assert drawn(stays) == ["Generator", "  chat"]
    assert drawn(folds) == ["chat +1"]
    assert folds[0].relation == "root"


def test_only_msgfluxs_own_functions_without_attributes_are_wrappers() -> None:
    child = stored_span(span_id=span_id(2), parent_span_id=span_id(1), name="work")
    own = stored_span(name="scatter_gather", scope=stored_scope(name="msgtrace.sdk"))
    foreign = stored_span(name="scatter_gather", scope=stored_scope(name="shop"))

    assert drawn(fold_wrappers(tree(own, child))) == ["work +1"]
    assert drawn(fold_wrappers(tree(foreign, child))) == ["scatter_gather", "  work"]


def test_a_deep_chain_of_wrappers_is_folded_without_recursion() -> None:
    spans = [
        stored_span(
            span_id=span_id(n),
            parent_span_id=span_id(n - 1) if n > 1 else None,
            attributes=WRAPPER if n < 5_000 else JsonText("{}"),
            name=f"{n}",
        )
        for n in range(1, 5_001)
    ]
    roots = with_usage(build_forest(spans, max_depth=10_000), {})

    [left] = fold_wrappers(roots)

    assert (left.span.name, left.folded_count) == ("5000", 4_999)
