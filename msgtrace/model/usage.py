"""Which of several nested statements about tokens and cost counts.

An SDK's chat span may stand around an instrumentor's chat span for the same call, and an agent's
span repeats what the calls beneath it used. Counted is the innermost statement:
- tokens of a model call that no other model call with tokens stands beneath;
- a sent cost, by whatever span, that no other sent cost stands beneath;
- an estimate where the tokens count, and no sent cost counts on it, above it or beneath it.
What stands beneath what is known once the spans between are stored; the rule asks all statements of
a trace together, so that neither the order of arrival nor the split into requests matters.
Pure: `storage.usage` reads the statements and writes what counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgtrace.model.span import SpanId


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one span states, and whether it counts.

    is_model_call: its tokens may count. cost: as sent; estimate: by the price table.
    """

    span_id: SpanId
    start_time_ns: int
    is_model_call: bool
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    estimate: float | None = None
    counts_tokens: bool = True
    counts_cost: bool = True

    @property
    def has_tokens(self) -> bool:
        """Whether it says how many tokens a call of a model took."""
        return self.is_model_call and bool(self.input_tokens or self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotals:
    """Sums of what counts. estimated_cost is the part of cost that nobody sent."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float


Verdict = tuple[bool, bool]
"""(the tokens count, the cost or estimate counts)."""


def count_once(usages: Sequence[Usage], parents: Mapping[SpanId, SpanId]) -> list[Verdict]:
    """For each statement of one trace, whether it counts.

    parents: the parent of each span that states something and of each span above one, as far as
    they are stored. A ring of parents is cut open, above the span with the least id.
    """
    parents = _without_rings(parents)
    over_tokens = _spans_above((u.span_id for u in usages if u.has_tokens), parents)
    over_cost = _spans_above((u.span_id for u in usages if u.cost is not None), parents)
    counted = {u.span_id for u in usages if u.cost is not None and u.span_id not in over_cost}
    over_counted = _spans_above(counted, parents)
    verdicts: list[Verdict] = []
    for usage in usages:
        tokens = usage.is_model_call and usage.span_id not in over_tokens
        if usage.cost is not None:
            cost = usage.span_id in counted
        else:
            cost = (
                tokens
                and usage.estimate is not None
                and usage.span_id not in over_counted
                and not _stands_beneath(usage.span_id, counted, parents)
            )
        verdicts.append((tokens, cost))
    return verdicts


def sum_counted(usages: Iterable[Usage]) -> UsageTotals:
    """The sums over what counts; the same in any order."""
    usages = list(usages)
    tokens = [usage for usage in usages if usage.counts_tokens]
    costs = [usage for usage in usages if usage.counts_cost]
    sent = [usage.cost for usage in costs if usage.cost is not None]
    estimated = [usage.estimate or 0.0 for usage in costs if usage.cost is None]
    return UsageTotals(
        input_tokens=sum(usage.input_tokens for usage in tokens),
        output_tokens=sum(usage.output_tokens for usage in tokens),
        cached_tokens=sum(usage.cached_tokens for usage in tokens),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in tokens),
        cost=math.fsum(sent + estimated),
        estimated_cost=math.fsum(estimated),
    )


def _spans_above(starts: Iterable[SpanId], parents: Mapping[SpanId, SpanId]) -> set[SpanId]:
    """All spans above any of `starts`; each is walked over once."""
    above: set[SpanId] = set()
    for start in starts:
        at = parents.get(start)
        while at is not None and at not in above:
            above.add(at)
            at = parents.get(at)
    return above


def _stands_beneath(span_id: SpanId, wanted: set[SpanId], parents: Mapping[SpanId, SpanId]) -> bool:
    at = parents.get(span_id) if wanted else None
    while at is not None and at not in wanted:
        at = parents.get(at)
    return at is not None


def _without_rings(parents: Mapping[SpanId, SpanId]) -> Mapping[SpanId, SpanId]:
    cut = dict(parents)
    visited: set[SpanId] = set()
    for start in parents:
        way_up: dict[SpanId, None] = {}  # a set in the order of the way
        at: SpanId | None = start
        while at is not None and at not in visited and at not in way_up:
            way_up[at] = None
            at = cut.get(at)
        if at is not None and at in way_up:
            ring = list(way_up)
            del cut[min(ring[ring.index(at) :])]
        visited.update(way_up)
    return cut
