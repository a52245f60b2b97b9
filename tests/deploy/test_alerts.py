"""Every alert parses, names metrics that exist, and says what to do."""

from __future__ import annotations

import re
from typing import Any

import promql_parser
import pytest

from tests.deploy.dockerfile import ROOT
from tests.deploy.files import DEPLOY, read_yaml
from tests.deploy.promql import names_of, problems_of

RULES: list[dict[str, Any]] = [
    rule
    for group in read_yaml(DEPLOY / "prometheus" / "alerts.yml")["groups"]
    for rule in group["rules"]
]
ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in RULES]

SECTION = re.compile(r"^### (\w+)$", re.MULTILINE)
TEMPLATE = re.compile(r"{{ (?:\$labels\.(?P<label>\w+)|\$value(?: \| \w+)?) }}")


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_reads_metrics_that_exist(rule: dict[str, Any]) -> None:
    assert problems_of(rule["expr"]) == []


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_is_complete(rule: dict[str, Any]) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    promql_parser.parse_duration(rule.get("for", "1s"))


@pytest.mark.parametrize("rule", ALERTS)
def test_the_summary_uses_labels_that_the_expression_keeps(rule: dict[str, Any]) -> None:
    summary = rule["annotations"]["summary"]
    used = {match["label"] for match in TEMPLATE.finditer(summary)} - {None}

    assert "{{" not in TEMPLATE.sub("", summary)
    for label in used:
        assert label == "instance" or f", {label})" in rule["expr"]


def test_every_alert_has_its_section_in_the_runbook() -> None:
    sections = SECTION.findall((ROOT / "docs" / "operations.md").read_text())
    named = [rule["alert"] for rule in RULES]

    assert set(named) <= set(sections)
    assert len(set(named)) == len(named)
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_the_alerts_watch_what_may_lose_spans() -> None:
    read = {name for rule in RULES for name in names_of(rule["expr"])}

    assert {
        "msgtrace_database_answers",
        "msgtrace_requests_refused_total",
        "msgtrace_spill_bytes",
        "msgtrace_dead_letter_spans_total",
        "msgtrace_acknowledgement_seconds_bucket",
        "msgtrace_queue_age_seconds",
    } <= read


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("msgtrace_nothing > 0", "no metric msgtrace_nothing"),
        ("msgtrace_acknowledgement_seconds > 0", "no metric msgtrace_acknowledgement_seconds"),
        ('msgtrace_queue_bytes{wire="grpc"} > 0', "msgtrace_queue_bytes has no label wire"),
        ("sum by (wire) (msgtrace_queue_bytes)", "no label wire"),
        ("sum without (wire) (up)", "names labels to leave out, not the ones to keep"),
    ],
)
def test_the_check_finds_what_is_wrong(expression: str, problem: str) -> None:
    assert problem in problems_of(expression)
