"""Check Prometheus expressions against the metrics that msgtrace declares."""

from __future__ import annotations

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, Expr, VectorSelector

from msgtrace.telemetry.metric_set import Declaration
from msgtrace.telemetry.metrics import declarations

NOT_OURS = {"up", "process_open_fds", "process_max_fds"} | {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
}
"""What Prometheus and its client library add."""

OF_PROMETHEUS = {"job", "instance"}


def problems_of(expression: str) -> list[str]:
    """What is wrong with an expression. Raises ValueError if it does not parse."""
    expr = promql_parser.parse(expression)
    found: list[str] = []
    known = {"le"} | OF_PROMETHEUS

    def collect(each: Expr) -> bool:
        if isinstance(each, VectorSelector):
            found.extend(_problems(each))
            known.update(_labels(each.name or ""))
        return True

    promql_parser.walk(expr, collect)

    def check_labels(each: Expr) -> bool:
        if isinstance(each, AggregateExpr) and each.modifier is not None:
            if each.modifier.type != AggModifierType.By:
                found.append("names labels to leave out, not the ones to keep")
            found.extend(f"no label {x}" for x in each.modifier.labels if x not in known)
        return True

    promql_parser.walk(expr, check_labels)
    return found


def names_of(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    names: set[str] = set()

    def collect(each: Expr) -> bool:
        if isinstance(each, VectorSelector):
            names.add(each.name or "")
        return True

    promql_parser.walk(promql_parser.parse(expression), collect)
    return names


def series() -> dict[str, Declaration]:
    """Every name that /metrics shows, with the metric that it belongs to."""
    shown: dict[str, Declaration] = {}
    for each in declarations().values():
        suffixes = ("_bucket", "_sum", "_count") if each.kind == "histogram" else ("",)
        shown |= {each.name + suffix: each for suffix in suffixes}
    return shown


def _problems(selector: VectorSelector) -> list[str]:
    name = selector.name or ""
    if name not in series().keys() | NOT_OURS:
        return [f"no metric {name}"]
    matched = [matcher.name for matcher in selector.matchers.matchers]
    return [f"{name} has no label {x}" for x in matched if x not in _labels(name) | OF_PROMETHEUS]


def _labels(name: str) -> set[str]:
    declared = series().get(name)
    return set(declared.labels) if declared else set()
