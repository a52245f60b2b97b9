from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from msgtrace.model.units import parse_time_ns
from tests.cli.canned import (
    TRACE_A,
    TRACE_B,
    CannedServer,
    node,
    span,
    stats,
    summary,
    trace_list,
    tree,
)
from tests.cli.conftest import Run

TREE_PATH = f"/api/v1/traces/{TRACE_A}/tree"


def test_list_shows_each_trace_on_one_uncut_line_in_a_pipe(canned: CannedServer, run: Run) -> None:
    long_name = "GET /" + "long/" * 40
    canned.reply("/api/v1/traces", trace_list(summary(root_span_name=long_name), summary(TRACE_B)))

    lines = run("list", "--url", canned.url).stdout.splitlines()

    assert len(lines) == 4
    assert TRACE_A in lines[1]
    assert long_name in lines[1]
    assert TRACE_B in lines[2]
    assert lines[3] == "2 of 2 traces"


def test_list_shows_model_columns_only_when_a_trace_has_models(
    canned: CannedServer, run: Run
) -> None:
    canned.reply("/api/v1/traces", trace_list(summary()))
    assert "Models" not in run("list", "--url", canned.url).stdout

    asked_model = summary(models=["small-1"], input_tokens=1200, output_tokens=30)
    canned.reply("/api/v1/traces", trace_list(summary(), asked_model))
    shown = run("list", "--url", canned.url).stdout
    assert "Models" in shown
    assert "Workflow" not in shown
    assert "small-1" in shown
    assert "1,200/30" in shown


def test_list_shows_workflow_model_tokens_and_cost(canned: CannedServer, run: Run) -> None:
    turn = summary(
        workflow_name="trip_planner",
        models=["gpt-5-mini", "gpt-5"],
        input_tokens=600,
        output_tokens=155,
        cost=0.00043,
        estimated_cost=0.0001,
    )
    canned.reply("/api/v1/traces", trace_list(turn, summary(TRACE_B)))

    head, first, second, _ = run("list", "--url", canned.url).stdout.splitlines()

    assert head.split()[-6:] == ["Errors", "Workflow", "Models", "Tokens", "in/out", "Cost"]
    assert first.endswith("trip_planner  gpt-5-mini, gpt-5        600/155  ~0.00043")
    assert second.split()[-1] == "0"


def test_every_filter_reaches_the_api_under_its_name(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/traces", trace_list())

    run(
        *("list", "--url", canned.url, "--service", "shop", "--name", "GET /", "--workflow", "w"),
        *(
            "--session",
            "s",
            "--user",
            "u",
            "--model",
            "m",
            "--tool",
            "t",
            "--no-errors",
            "--min-duration",
            "1.5",
        ),
        *("--max-duration", "20", "--start", "2026-03-01T12:00:00Z", "--end", "5"),
        *("--attr", "a=b=c", "--attr", "d=", "--search", "needle", "--limit", "7"),
        *("--cursor", "c", "--min-tokens", "100", "--min-cost", "0.5"),
    )

    assert canned.asked[0].parameters == [
        ("service_name", "shop"),
        ("name", "GET /"),
        ("workflow_name", "w"),
        ("session_id", "s"),
        ("user_id", "u"),
        ("model", "m"),
        ("tool", "t"),
        ("min_tokens", "100"),
        ("min_cost", "0.5"),
        ("has_errors", "false"),
        ("min_duration_ms", "1.5"),
        ("max_duration_ms", "20.0"),
        ("start", "2026-03-01T12:00:00.000000000Z"),
        ("end", "1970-01-01T00:00:00.000000005Z"),
        ("attr", "a=b=c"),
        ("attr", "d="),
        ("q", "needle"),
        ("limit", "7"),
        ("cursor", "c"),
    ]


@pytest.mark.parametrize(
    ("age", "meant"),
    [
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
    ],
)
def test_since_asks_for_traces_from_that_long_ago(
    canned: CannedServer, run: Run, age: str, meant: timedelta
) -> None:
    canned.reply("/api/v1/traces", trace_list())

    run("list", "--url", canned.url, "--since", age)

    start_ns = parse_time_ns(dict(canned.asked[0].parameters)["start"])
    expected = (datetime.now(UTC) - meant).timestamp()
    assert start_ns / 1e9 == pytest.approx(expected, abs=15)


@pytest.mark.parametrize("age", ["9999w", "999999999w"])
def test_an_age_before_1970_asks_from_1970_on(canned: CannedServer, run: Run, age: str) -> None:
    canned.reply("/api/v1/traces", trace_list())

    run("list", "--url", canned.url, "--since", age)

    assert ("start", "1970-01-01T00:00:00.000000000Z") in canned.asked[0].parameters


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "soon"),
        ("--since", "9" * 5_000 + "d"),
        ("--start", "9" * 5_000),
        ("--since", "2h", "--start", "2026-03-01"),
        ("--start", "yesterday"),
        ("--end", "1931-01-01"),
        ("--attr", "key"),
        ("--attr", "=value"),
        ("--limit", "0"),
        ("--min-duration", "-1"),
        ("--timeout", "0"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_wrong_usage(
    canned: CannedServer, run: Run, arguments: tuple[str, ...]
) -> None:
    result = run("list", "--url", canned.url, *arguments)

    assert result.exit_code == 2
    assert canned.asked == []


def test_the_last_line_is_the_command_for_the_next_page(canned: CannedServer, run: Run) -> None:
    page = trace_list(summary(), total=10_000, total_is_exact=False, next_cursor="abc")
    canned.reply("/api/v1/traces", page)

    shown = run("list", "--url", canned.url, "--errors", "--name", "a b", "--limit", "1").stdout

    assert shown.splitlines()[-1] == (
        "1 of more than 10,000 traces; next page:"
        f" msgtrace list --name 'a b' --errors --limit 1 --url {canned.url} --cursor abc"
    )


def test_an_empty_list_says_how_to_go_on(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/traces", trace_list())

    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318" in (
        run("list", "--url", canned.url).stdout
    )
    assert run("list", "--url", canned.url, "--errors").stdout == "No trace matches.\n"
    assert run("list", "--url", canned.url, "--cursor", "c").stdout == "No more traces.\n"


@pytest.mark.parametrize(
    ("command", "path", "body"),
    [
        (("list",), "/api/v1/traces", trace_list(summary())),
        (("show", TRACE_A), TREE_PATH, tree(node(span(), relation="root"))),
        (("stats",), "/api/v1/stats", stats()),
    ],
)
def test_json_is_the_reply_unchanged(
    canned: CannedServer, run: Run, command: tuple[str, ...], path: str, body: object
) -> None:
    sent = json.dumps(body, indent=1).encode()
    canned.reply(path, sent)

    result = run(*command, "--url", canned.url, "--json")

    assert result.exit_code == 0
    assert result.stdout_bytes == sent + b"\n"


def test_show_prints_facts_and_tree(canned: CannedServer, run: Run) -> None:
    child = node(span("SELECT", at_ms=5, lasts_ms=5, service="stock", error="no such table"))
    canned.reply(TREE_PATH, tree(node(span(lasts_ms=10), child, relation="root")))

    result = run("show", TRACE_A.upper(), "--url", canned.url)

    assert result.exit_code == 0
    assert f"Trace     {TRACE_A}" in result.stdout
    assert "Duration  10 ms" in result.stdout
    assert "Services  shop, stock" in result.stdout
    assert "└─ ✗ SELECT  stock" in result.stdout
    assert "   no such table" in result.stdout


def test_show_stops_after_a_thousand_spans_unless_told_to_go_on(
    canned: CannedServer, run: Run
) -> None:
    children = [node(span(f"child {number}")) for number in range(1_200)]
    canned.reply(TREE_PATH, tree(node(span(), *children, relation="root")))

    shown = run("show", TRACE_A, "--url", canned.url, "--children", "1300").stdout
    assert "child 998" in shown
    assert "child 999" not in shown
    assert shown.endswith("… 201 more spans; --all shows them\n")
    assert "child 1199" in run("show", TRACE_A, "--url", canned.url, "--all").stdout


def test_show_folds_many_children(canned: CannedServer, run: Run) -> None:
    children = [node(span(f"child {number}")) for number in range(5_030)]
    canned.reply(TREE_PATH, tree(node(span(), *children, relation="root")))

    shown = run("show", TRACE_A, "--url", canned.url).stdout
    assert "child 49" in shown
    assert "child 50" not in shown
    assert "└─ … 4,980 more\n" in shown

    wider = run("show", TRACE_A, "--url", canned.url, "--children", "60").stdout
    assert "child 59" in wider
    assert "└─ … 4,970 more\n" in wider


def test_show_of_an_unknown_trace_is_one_sentence(canned: CannedServer, run: Run) -> None:
    canned.reply(TREE_PATH, {"detail": f"trace {TRACE_A} not found"}, status=404)

    result = run("show", TRACE_A, "--url", canned.url)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: trace {TRACE_A} not found\n"


def test_show_of_something_else_than_a_trace_id_is_wrong_usage(run: Run) -> None:
    assert run("show", "latest").exit_code == 2


def test_stats_takes_filters_and_shows_sums(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/stats", stats(input_tokens=12_000, output_tokens=30, cost=0.0125))

    shown = run("stats", "--url", canned.url, "--service", "shop").stdout

    assert canned.asked[0].parameters == [("service_name", "shop")]
    assert "Traces    2  1 with errors (50.0%)" in shown
    assert "p95 9 ms" in shown
    assert "12,000 in, 30 out" in shown
    assert "0.0125" in shown


def test_stats_without_traces_have_no_percentiles(canned: CannedServer, run: Run) -> None:
    nothing = stats(total_traces=0, duration_ms={"p50": None, "p95": None, "p99": None})
    canned.reply("/api/v1/stats", nothing)

    assert "p50 -" in run("stats", "--url", canned.url).stdout


def test_the_default_address_is_that_of_the_settings(
    canned: CannedServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned.reply("/api/v1/traces", trace_list(summary()))
    monkeypatch.setenv("MSGTRACE_HOST", "0.0.0.0")
    monkeypatch.setenv("MSGTRACE_PORT", canned.url.rpartition(":")[2])

    assert TRACE_A in run("list").stdout


def test_an_address_without_a_scheme_is_http(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/traces", trace_list(summary()))

    assert TRACE_A in run("list", "--url", canned.url.removeprefix("http://") + "/").stdout


@pytest.mark.parametrize("url", ["ftp://host", "file:///etc/passwd", "http://", "http://h:x", ""])
def test_an_address_that_is_none_is_wrong_usage(run: Run, url: str) -> None:
    assert run("list", "--url", url).exit_code == 2
