"""Every panel of the dashboards asks something that has an answer.

SQL is run against a PostgreSQL with traces in it, its macros expanded as Grafana's data source
does; expressions for Prometheus are checked against the metrics that msgtrace declares.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import asyncpg
import pytest

from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.batches import NOON_NS, make_batch, span, trace_id_of
from tests.deploy.compose import SERVICES
from tests.deploy.files import DEPLOY, read_yaml
from tests.deploy.promql import problems_of

FOLDER = DEPLOY / "grafana" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}
SERVICE, TRACES = DASHBOARDS["msgtrace-service"], DASHBOARDS["msgtrace-traces"]

HOUR_NS = 3_600_000_000_000
INTERVAL_S = 60

MACRO = re.compile(r"\$__(\w+)\(([^)]*)\)")


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def params(dashboard: dict[str, Any]) -> list[Any]:
    return [pytest.param(panel, id=panel["title"]) for panel in panels(dashboard)]


# Form


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_dashboard_can_be_provisioned_and_imported_elsewhere(name: str) -> None:
    dashboard = DASHBOARDS[name]
    numbers = [panel["id"] for panel in dashboard["panels"]]

    assert dashboard["uid"] == name
    assert len(set(numbers)) == len(numbers)
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
        assert panel["description"].endswith(".")


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]

    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_each_dashboard_finds_its_data_source_in_what_compose_provisions() -> None:
    path = DEPLOY / "grafana" / "provisioning" / "datasources" / "msgtrace.yml"
    kinds = {source["type"] for source in read_yaml(path)["datasources"]}

    assert {each["templating"]["list"][0]["query"] for each in DASHBOARDS.values()} == kinds


def test_compose_mounts_the_dashboards_where_they_are_looked_for() -> None:
    path = DEPLOY / "grafana" / "provisioning" / "dashboards" / "msgtrace.yml"
    (provider,) = read_yaml(path)["providers"]

    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted


# Prometheus


@pytest.mark.parametrize("panel", params(SERVICE))
def test_a_panel_of_the_service_reads_metrics_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        assert "$" not in expression
        assert problems_of(expression) == []


def test_the_variables_of_the_service_read_metrics_that_exist() -> None:
    queries = [each["query"] for each in SERVICE["templating"]["list"] if each["type"] == "query"]

    assert queries == ["label_values(msgtrace_build_info, instance)"]
    assert problems_of("msgtrace_build_info") == []


# PostgreSQL


def expand(sql: str) -> str:
    """The query as Grafana sends it, for the hour around noon and the services of the data."""
    sql = MACRO.sub(lambda match: expand_macro(match[1], match[2].split(",")), sql)
    sql = sql.replace("$__interval_ms", str(INTERVAL_S * 1000))
    sql = sql.replace("$service", "'shop', 'agent'")
    assert "$" not in sql
    return sql


def expand_macro(name: str, arguments: list[str]) -> str:
    column, *interval = (argument.strip() for argument in arguments)
    assert interval in ([], ["$__interval"])
    if name == "unixEpochNanoFilter":
        return f"{column} >= {NOON_NS - HOUR_NS} AND {column} <= {NOON_NS + HOUR_NS}"
    expression = {
        "timeGroupAlias": f"floor(extract(epoch from {column})/{INTERVAL_S})*{INTERVAL_S}",
        "unixEpochGroupAlias": f"floor(({column})/{INTERVAL_S})*{INTERVAL_S}",
    }[name]
    return f'{expression} AS "time"'


@pytest.fixture
async def connection(postgres_url: str) -> Any:
    """Traces of a shop and of an agent, and one outside the time that is looked at."""
    async with open_storage(Settings(database_url=postgres_url)) as storage:
        await storage.write_spans([*shop_traces(), *agent_traces(), yesterday()])
    opened = await asyncpg.connect(postgres_url)
    try:
        yield opened
    finally:
        await opened.close()


def shop_traces() -> list[Any]:
    return [
        make_batch(
            span(
                "GET /cart",
                trace_id=trace_id_of(f"shop {number}"),
                start_ns=NOON_NS + number * 1_000_000_000,
                duration_ns=(number + 1) * 1_000_000,
                kind=2,
                status_code=2 if number == 7 else 0,
                status_message="no such cart" if number == 7 else "",
            )
        )
        for number in range(10)
    ]


def agent_traces() -> list[Any]:
    return [
        make_batch(
            span(
                "chat",
                trace_id=trace_id_of(f"agent {number}"),
                start_ns=NOON_NS,
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.request.model": f"model-{number % 2}",
                    "gen_ai.usage.input_tokens": 100,
                    "gen_ai.usage.output_tokens": 10,
                    "gen_ai.usage.cost.amount": 0.25,
                    "workflow.name": "answer",
                    "session.id": "s1",
                },
            ),
            service="agent",
        )
        for number in range(4)
    ]


def yesterday() -> Any:
    early = span("old", trace_id=trace_id_of("old"), start_ns=NOON_NS - 24 * HOUR_NS)
    return make_batch(early)


@pytest.mark.postgres
async def test_every_panel_of_the_traces_has_an_answer(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    for panel in panels(TRACES):
        (target,) = panel["targets"]
        rows = await connection.fetch(expand(target["rawSql"]))
        assert rows, panel["title"]
        assert all(value is not None for value in rows[0].values() if panel["type"] == "stat")
        assert (target["format"] == "time_series") == (panel["type"] == "timeseries")
        if panel["type"] == "timeseries":
            assert min(row["time"] for row in rows) >= (NOON_NS - HOUR_NS) // 10**9
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in rows[0].keys()  # noqa: SIM118 - a Record iterates over values


@pytest.mark.postgres
async def test_the_figures_of_the_traces_are_right(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    rows = {
        panel["title"]: await connection.fetch(expand(panel["targets"][0]["rawSql"]))
        for panel in panels(TRACES)
    }

    assert rows["Traces"][0][0] == rows["Spans"][0][0] == 14
    assert rows["Traces with errors"][0][0] == pytest.approx(1 / 14)
    assert rows["Tokens"][0][0] == 440
    assert rows["Cost"][0][0] == 1.0
    assert dict(rows["Errors"][0])["message"] == "no such cart"
    assert rows["Slowest traces"][0]["trace"] == trace_id_of("shop 9").hex()
    assert rows["Newest traces with errors"][0]["trace"] == trace_id_of("shop 7").hex()
    by_model = {row["models"]: (row["input"], row["cost"]) for row in rows["By model"]}
    assert by_model == {"model-0": (200, 0.5), "model-1": (200, 0.5)}
    assert rows["By workflow"][0]["workflow"] == "answer"
    spans_a_second = sum(float(row["value"]) for row in rows["Spans by service"])
    assert spans_a_second == pytest.approx(14 / INTERVAL_S)


@pytest.mark.postgres
async def test_the_variables_of_the_traces_have_an_answer(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    (variable,) = (each for each in TRACES["templating"]["list"] if each["type"] == "query")

    rows = await connection.fetch(expand(variable["query"]))

    assert [row[0] for row in rows] == ["agent", "shop"]


@pytest.mark.postgres
async def test_a_panel_reads_the_partitions_of_its_time_only(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    partitions = re.compile(r"spans_(?:p?\d[\w]*|default)")
    everything = await connection.fetch("EXPLAIN SELECT count(*) FROM span_view")
    for panel in panels(TRACES):
        sql = expand(panel["targets"][0]["rawSql"])
        if "span_view" not in sql:
            continue
        plan = await connection.fetch(f"EXPLAIN {sql}")
        read, all_of_them = (
            set(partitions.findall(" ".join(row[0] for row in rows))) for rows in (plan, everything)
        )
        assert read < all_of_them, panel["title"]
