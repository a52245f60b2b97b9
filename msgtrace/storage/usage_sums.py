"""Tokens and cost as readers ask for them: of each span of a trace; by model, service and day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from msgtrace.model.span import Row
from msgtrace.model.text import unescape_text
from msgtrace.model.trace import SpanKey, SpanUsage, UsageSums
from msgtrace.model.units import NS_PER_DAY

_S_PER_DAY = 86_400

_SUMS = f"""
SELECT u.model, u.service_name, u.start_time_ns / {NS_PER_DAY} AS day,
    count(*) FILTER (WHERE u.is_model_call AND u.counts_tokens),
    sum(u.input_tokens) FILTER (WHERE u.counts_tokens),
    sum(u.output_tokens) FILTER (WHERE u.counts_tokens),
    sum(u.cached_tokens) FILTER (WHERE u.counts_tokens),
    sum(u.reasoning_tokens) FILTER (WHERE u.counts_tokens),
    sum(coalesce(u.cost, u.estimate)) FILTER (WHERE u.counts_cost),
    sum(u.estimate) FILTER (WHERE u.counts_cost AND u.cost IS NULL)
FROM traces t JOIN model_usage u ON u.tenant_id = t.tenant_id AND u.trace_id = t.trace_id
WHERE {{where}} AND t.has_usage
GROUP BY u.model, u.service_name, u.start_time_ns / {NS_PER_DAY}
"""  # noqa: S608 - built from constants

K = TypeVar("K")


USAGES = """
SELECT span_id, start_time_ns, model, provider, is_model_call, input_tokens, output_tokens,
    cached_tokens, reasoning_tokens, cost, estimate, counts_tokens, counts_cost
FROM model_usage WHERE tenant_id = ? AND trace_id = ?
"""


def span_usage(row: Row) -> tuple[SpanKey, SpanUsage]:
    """A row of USAGES."""
    span_id, start_ns, model, provider, is_model_call, *tokens = row[:9]
    sent, estimate, counts_tokens, counts_cost = row[9:]
    cost = estimate if sent is None else sent
    counted_tokens = tokens if counts_tokens else [0] * len(tokens)
    counted_cost = (cost or 0.0) if counts_cost else 0.0
    usage = SpanUsage(
        model=None if model is None else unescape_text(model),
        provider=None if provider is None else unescape_text(provider),
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cached_tokens=tokens[2],
        reasoning_tokens=tokens[3],
        cost=cost,
        is_estimated=sent is None and estimate is not None,
        counts_tokens=bool(counts_tokens),
        counts_cost=bool(counts_cost),
        counted=UsageSums(
            model_calls=int(is_model_call and counts_tokens),
            input_tokens=counted_tokens[0],
            output_tokens=counted_tokens[1],
            cached_tokens=counted_tokens[2],
            reasoning_tokens=counted_tokens[3],
            cost=counted_cost,
            estimated_cost=counted_cost if sent is None else 0.0,
        ),
    )
    return (span_id, start_ns), usage


def usage_sums_sql(where: str) -> str:
    """The sums over the traces `t` for which `where` holds."""
    return _SUMS.format(where=where)


def group_usage(
    rows: Iterable[Row],
) -> tuple[dict[str | None, UsageSums], dict[str, UsageSums], dict[str, UsageSums]]:
    """What `usage_sums_sql` gives, by model, by service and by day.

    Models and services stand by cost, then by tokens, the greatest first; days in order.
    """
    by_model: dict[str | None, UsageSums] = {}
    by_service: dict[str, UsageSums] = {}
    by_day: dict[str, UsageSums] = {}
    for row in rows:
        sums = _sums(row)
        _add(by_model, None if row[0] is None else unescape_text(row[0]), sums)
        _add(by_service, unescape_text(row[1]), sums)
        _add(by_day, f"{datetime.fromtimestamp(row[2] * _S_PER_DAY, UTC):%Y-%m-%d}", sums)
    return _by_cost(by_model), _by_cost(by_service), dict(sorted(by_day.items()))


def _sums(row: Row) -> UsageSums:
    model_calls, given, made, cached, reasoning, cost, estimated = row[3:]
    return UsageSums(
        model_calls=model_calls,
        input_tokens=int(given or 0),
        output_tokens=int(made or 0),
        cached_tokens=int(cached or 0),
        reasoning_tokens=int(reasoning or 0),
        cost=float(cost or 0),
        estimated_cost=float(estimated or 0),
    )


def _add(groups: dict[K, UsageSums], name: K, sums: UsageSums) -> None:
    known = groups.get(name)
    groups[name] = sums if known is None else known.plus(sums)


def _by_cost(groups: dict[K, UsageSums]) -> dict[K, UsageSums]:
    def weight(name: K) -> tuple[float, int, str]:
        sums = groups[name]
        return -sums.cost, -(sums.input_tokens + sums.output_tokens), str(name)

    return {name: groups[name] for name in sorted(groups, key=weight)}
