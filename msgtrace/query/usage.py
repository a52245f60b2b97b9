"""A trace's tree as people read an agent's run: what each span does, and what its subtree used.

Path: storage → query.tree → [query.usage] → api.views.
Wrapper spans say nothing that the spans beneath them do not say: `fold_wrappers` takes them out and
leaves their children in their places. Pure, and without recursion, as `query.tree`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from msgtrace.model.genai import WRAPPER
from msgtrace.model.span import STATUS_ERROR, Span
from msgtrace.model.trace import SpanKey, SpanUsage, UsageSums
from msgtrace.query.operations import span_operation
from msgtrace.query.tree import Relation, TreeNode

NO_USAGE = UsageSums(
    model_calls=0,
    input_tokens=0,
    output_tokens=0,
    cached_tokens=0,
    reasoning_tokens=0,
    cost=0.0,
    estimated_cost=0.0,
)


@dataclass(slots=True, eq=False)
class UsageNode:
    """A span in its place. usage: what it states itself. subtree: what counts of it and beneath it.

    folded_count: wrapper spans that were taken out directly above it.
    """

    span: Span
    relation: Relation
    operation: str | None
    usage: SpanUsage | None
    subtree: UsageSums = NO_USAGE
    folded_count: int = 0
    children: list[UsageNode] = field(default_factory=list)


def added(one: UsageSums, other: UsageSums) -> UsageSums:
    """Both together; most often one of them is NO_USAGE."""
    if one is NO_USAGE or other is NO_USAGE:
        return other if one is NO_USAGE else one
    return one.plus(other)


def usage_node(
    span: Span,
    relation: Relation,
    usages: Mapping[SpanKey, SpanUsage],
    subtree: UsageSums | None = None,
) -> UsageNode:
    """One span without children. subtree: its own usage unless it is known already."""
    usage = usages.get((span.span_id, span.start_time_ns))
    attributes: dict[str, Any] = msgspec.json.decode(span.attributes)
    own = NO_USAGE if usage is None else usage.counted
    return UsageNode(
        span=span,
        relation=relation,
        operation=span_operation(span, attributes),
        usage=usage,
        subtree=own if subtree is None else subtree,
    )


def with_usage(
    roots: Sequence[TreeNode[Span]], usages: Mapping[SpanKey, SpanUsage]
) -> list[UsageNode]:
    """The same forest, each node with its operation, its usage and that of its subtree."""
    forest: list[UsageNode] = []
    order: list[tuple[UsageNode, UsageNode | None]] = []
    waiting: list[tuple[TreeNode[Span], UsageNode | None]] = [
        (root, None) for root in reversed(roots)
    ]
    while waiting:
        node, parent = waiting.pop()
        own = usage_node(node.span, node.relation, usages)
        order.append((own, parent))
        (forest if parent is None else parent.children).append(own)
        waiting += [(child, own) for child in reversed(node.children)]
    for own, parent in reversed(order):  # children before parents
        if parent is not None:
            parent.subtree = added(parent.subtree, own.subtree)
    return forest


def fold_wrappers(roots: Sequence[UsageNode]) -> list[UsageNode]:
    """The forest without wrapper spans; their children stand in their places.

    A wrapper without children stays, and one that failed without any span beneath it having failed.
    """
    failed = _with_failures(roots)
    forest: list[UsageNode] = []
    waiting: list[tuple[UsageNode, list[UsageNode], int]] = [
        (root, forest, 0) for root in reversed(roots)
    ]
    while waiting:
        node, siblings, folded = waiting.pop()
        if _is_foldable(node, failed):
            for child in node.children:
                if child.relation == "child":
                    child.relation = node.relation
            waiting += [(child, siblings, folded + 1) for child in reversed(node.children)]
            continue
        children, node.children, node.folded_count = node.children, [], folded
        siblings.append(node)
        waiting += [(child, node.children, 0) for child in reversed(children)]
    return forest


def every_node(roots: Sequence[UsageNode]) -> Iterator[UsageNode]:
    """All nodes, parents before their children."""
    waiting = list(reversed(roots))
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def _is_foldable(node: UsageNode, failed: set[int]) -> bool:
    if node.operation != WRAPPER or not node.children:
        return False
    return node.span.status_code != STATUS_ERROR or any(
        id(child) in failed for child in node.children
    )


def _with_failures(roots: Sequence[UsageNode]) -> set[int]:
    """Nodes that failed, or that have one that failed beneath them, by identity."""
    failed: set[int] = set()
    for node in reversed(list(every_node(roots))):
        if node.span.status_code == STATUS_ERROR or any(
            id(child) in failed for child in node.children
        ):
            failed.add(id(node))
    return failed
