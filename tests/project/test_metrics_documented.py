"""docs/metrics.md says what msgtrace.telemetry.metrics declares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from msgtrace.telemetry.metric_set import Declaration
from msgtrace.telemetry.metrics import declarations
from tests.project.render_metrics import ALARMS, render

ROOT = Path(__file__).parents[2]
METRICS = [pytest.param(each, id=each.name) for each in declarations().values()]

UNITS = ("_total", "_seconds", "_bytes", "_spans", "_requests", "_letters", "_workers", "_info")
WITHOUT_UNIT = {
    "msgtrace_database_answers",
    "msgtrace_retention_enabled",
    "msgtrace_partitions",
    "msgtrace_database_connections",
    "msgtrace_database_connections_in_use",
}


def test_the_metrics_page_is_fresh() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()

    assert page == render(), "docs/metrics.md is stale: run `make docs`"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_named_by_its_unit_and_explained(metric: Declaration) -> None:
    assert re.fullmatch(r"msgtrace_[a-z_]+", metric.name)
    assert metric.name.endswith(UNITS) or metric.name in WITHOUT_UNIT
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.meaning.endswith(".")


def test_the_page_speaks_of_no_metric_that_does_not_exist() -> None:
    named = {name for query in ALARMS for name in re.findall(r"\bmsgtrace_[a-z_]+", query)}

    assert {name.removesuffix("_bucket") for name in named} <= declarations().keys()


def test_metrics_are_declared_in_one_place_only() -> None:
    makers = re.compile(r"\b(Counter|Gauge|Histogram|Summary)\(\s*\"")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "msgtrace").rglob("*.py"))
        if makers.search(path.read_text())
    ]

    assert found == []
