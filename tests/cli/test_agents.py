"""An agent's run as a person sees it: the tree, its messages, sessions, and traces as they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from msgtrace.cli.replies import TraceSummary
from msgtrace.cli.tail import Follower
from tests.cli.canned import (
    START_NS,
    TRACE_A,
    TRACE_B,
    CannedServer,
    node,
    session,
    span,
    summary,
    trace_list,
    tree,
)
from tests.cli.conftest import Run

TREE_PATH = f"/api/v1/traces/{TRACE_A}/tree"

SECRET = "What should I pack for Natal?"


def used(
    input_tokens: int, output_tokens: int, cost: float, estimated: float = 0
) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cost": cost,
        "estimated_cost": estimated,
    }


def an_agent_turn() -> dict[str, Any]:
    """A workflow with an agent that calls a model, a tool that fails, and the model again."""
    asked = {"role": "user", "parts": [{"type": "text", "content": SECRET}]}
    call = {"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Natal"}}
    wants = {"role": "assistant", "parts": [call]}
    result = {"type": "tool_call_response", "id": "c1", "result": "\x1b[31m29 C"}
    answered = {"role": "tool", "parts": [result]}
    answer = {"role": "assistant", "parts": [{"type": "text", "content": "A hat.\nSun cream."}]}
    first = {"gen_ai.input.messages": [asked], "gen_ai.output.messages": [wants]}
    second = {
        "gen_ai.input.messages": json.dumps([asked, wants, answered]),
        "gen_ai.output.messages": [answer],
    }
    tool = {"gen_ai.operation.name": "tool", "gen_ai.tool.name": "get_weather"}
    model: dict[str, Any] = {"operation": "inference", "usage": {"model": "gpt-5-mini"}}
    return tree(
        node(
            span("Trip Planner", lasts_ms=10, span_id="0" * 15 + "1"),
            node(
                span("Agent", lasts_ms=10, span_id="0" * 15 + "2"),
                node(
                    span("chat", lasts_ms=4, span_id="0" * 15 + "3", attributes=first),
                    **model,
                    subtree=used(120, 31, 0.0001, 0.0001),
                    folded_count=1,
                ),
                node(
                    span(
                        "Get Weather",
                        at_ms=4,
                        lasts_ms=2,
                        span_id="0" * 15 + "4",
                        attributes=tool,
                        error="no such city",
                    ),
                    operation="execute_tool",
                ),
                node(
                    span(
                        "chat gpt-5-mini",
                        at_ms=6,
                        lasts_ms=4,
                        span_id="0" * 15 + "5",
                        attributes=second,
                    ),
                    **model,
                    subtree=used(1_480, 124, 0.5),
                ),
                operation="invoke_agent",
                subtree=used(1_600, 155, 0.5001, 0.0001),
            ),
            relation="root",
            operation="invoke_workflow",
            subtree=used(1_600, 155, 0.5001, 0.0001),
        ),
        span_count=7,
        summary=summary(
            workflow_name="trip",
            session_id="conv-1",
            user_id="ana",
            models=["gpt-5-mini"],
            input_tokens=1_600,
            output_tokens=155,
            cached_tokens=64,
            cost=0.5001,
            estimated_cost=0.0001,
        ),
    )


def test_show_draws_the_agents_tree_with_signs_tokens_and_cost(
    canned: CannedServer, run: Run
) -> None:
    canned.reply(TREE_PATH, an_agent_turn())

    lines = run("show", TRACE_A, "--url", canned.url).stdout.splitlines()

    bar = "█" * 48
    assert lines[3:] == [
        "Spans     7 (2 wrappers folded; --unfold shows them)",
        "Errors    1",
        "Services  shop",
        "Workflow  trip",
        "Session   conv-1",
        "User      ana",
        "Models    gpt-5-mini",
        "Tokens    1,600 in (64 cached), 155 out",
        "Cost      0.5 (0.0001 of it estimated)",
        "",
        f"▣ Trip Planner  shop         10 ms  1,600/155     ~0.5  {bar}",
        f"└─ ◉ Agent                   10 ms  1,600/155     ~0.5  {bar}",
        f"   ├─ ✦ chat  gpt-5-mini      4 ms     120/31  ~0.0001  {bar[:20]}",
        f"   ├─ ✗ ⚒ Get Weather         2 ms                      {' ' * 19}{bar[:10]}",
        "   │     no such city",
        f"   └─ ✦ chat gpt-5-mini       4 ms  1,480/124      0.5  {' ' * 28}{bar[:20]}",
        "",
        "▣ workflow  ◉ agent  ✦ model call  ⚒ tool",
    ]
    assert canned.asked[0].parameters == [("fold", "wrappers")]


@pytest.mark.parametrize("flags", [["--unfold"], ["--json"]])
def test_show_asks_for_all_spans_when_told(
    canned: CannedServer, run: Run, flags: list[str]
) -> None:
    canned.reply(TREE_PATH, an_agent_turn())

    run("show", TRACE_A, "--url", canned.url, *flags)

    assert canned.asked[0].parameters == []


def test_what_was_said_is_shown_only_on_request_and_each_message_once(
    canned: CannedServer, run: Run
) -> None:
    canned.reply(TREE_PATH, an_agent_turn())

    plain = run("show", TRACE_A, "--url", canned.url).stdout
    told = run("show", TRACE_A, "--url", canned.url, "--messages").stdout

    assert SECRET not in plain
    said = [line.strip(" │├└─") for line in told.splitlines()]
    assert [line for line in said if line[:4] in ("user", "assi", "tool", "Sun ", "… 2 ")] == [
        f"user      {SECRET}",
        'assistant → get_weather(city="Natal")',
        "assistant → get_weather()",
        "… 2 messages as above",
        r"tool      ← \x1b[31m29 C",
        "assistant A hat.",
        "Sun cream.",
    ]
    assert told.count(SECRET) == 1


def test_a_call_of_which_nothing_was_recorded_says_so(canned: CannedServer, run: Run) -> None:
    sent = node(span("chat", span_id="0" * 16), operation="inference", relation="root")
    canned.reply(TREE_PATH, tree(sent))

    told = run("show", TRACE_A, "--url", canned.url, "--messages").stdout

    assert "nothing was recorded" in told


# Sessions


def test_sessions_are_listed_with_their_sums(canned: CannedServer, run: Run) -> None:
    canned.reply(
        "/api/v1/sessions",
        {
            "sessions": [session(), session("conv-2", user_id=None, error_count=2)],
            "limit": 2,
            "next_cursor": "abc",
        },
    )

    lines = run("sessions", "--url", canned.url, "--user", "u", "--limit", "2").stdout.splitlines()

    assert canned.asked[0].parameters == [("user_id", "u"), ("limit", "2")]
    assert lines[1].split()[2:] == [
        *("conv-1", "user-42", "trip", "3", "0", "7.28", "s", "gpt-5", "690/171", "~0.000815")
    ]
    assert lines[-1] == "2 sessions; next page: msgtrace sessions --cursor abc"


def test_a_session_is_shown_with_its_traces(canned: CannedServer, run: Run) -> None:
    canned.reply(
        "/api/v1/sessions/a%2Fb",
        session("a/b") | {"traces": [summary()], "limit": 100, "next_cursor": None},
    )

    shown = run("sessions", "a/b", "--url", canned.url).stdout

    assert "Session   a/b" in shown
    assert "Cost      0.000815 (0.000065 of it estimated)" in shown
    assert TRACE_A in shown
    assert shown.endswith("1 of 3 traces\n")


def test_no_sessions_are_said_to_be_none(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/sessions", {"sessions": [], "limit": 100, "next_cursor": None})

    assert run("sessions", "--url", canned.url).stdout == "No sessions.\n"


# Tail


def trace(trace_id: str, spans: int) -> TraceSummary:
    return TraceSummary(
        trace_id=trace_id,
        start_time_unix_nano=START_NS,
        end_time_unix_nano=START_NS,
        span_count=spans,
        error_count=0,
        service_name="shop",
        root_span_name="GET /",
    )


def test_a_trace_is_shown_when_it_has_stopped_growing_and_again_when_it_grows_later() -> None:
    follower = Follower()
    follower.skip([trace("old", 3)])
    looks = [
        [trace("new", 1), trace("old", 3)],
        [trace("new", 4), trace("old", 3)],
        [trace("new", 4), trace("old", 3)],
        [trace("new", 4), trace("old", 5)],
        [trace("new", 4), trace("old", 5)],
        [trace("new", 4), trace("old", 5)],
    ]

    shown = [
        [(each.trace_id, was_shown) for each, was_shown in follower.settled(look)] for look in looks
    ]

    assert shown == [[], [], [("new", False)], [], [("old", True)], []]


def test_what_left_the_window_is_forgotten() -> None:
    follower = Follower()
    for number in range(50):
        look = [trace(f"{number}", 1)]
        assert follower.settled(look) == []
        assert len(follower.settled(look)) == 1

    assert len(follower.seen) == len(follower.shown) == 1


@contextmanager
def replies_later(canned: CannedServer, *traces: dict[str, Any]) -> Iterator[None]:
    later = threading.Timer(0.3, canned.reply, ("/api/v1/traces", trace_list(*traces)))
    later.start()
    try:
        yield
    finally:
        later.join()


def test_tail_shows_what_arrives_while_it_runs(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/traces", trace_list(summary()))
    turn = summary(TRACE_B, models=["gpt-5"], input_tokens=9, cost=0.25, error_count=2)

    with replies_later(canned, turn, summary()):
        lines = run(
            *("tail", "--url", canned.url, "--interval", "0.1", "--count", "1"),
            *("--service", "shop"),
        ).stdout.splitlines()

    [line] = lines
    assert TRACE_B in line
    assert line.endswith("GET /cart  shop  9/0 tokens  0.25  gpt-5  2 errors")
    assert ("service_name", "shop") in canned.asked[0].parameters


def test_tail_prints_json_lines_for_programs(canned: CannedServer, run: Run) -> None:
    canned.reply("/api/v1/traces", trace_list())

    with replies_later(canned, summary(), summary(TRACE_B)):
        lines = run(
            "tail", "--url", canned.url, "--interval", "0.1", "--count", "2", "--json"
        ).stdout.splitlines()

    assert [json.loads(line)["trace_id"] for line in lines] == [TRACE_B, TRACE_A]


def test_stats_tell_tokens_and_cost_of_each_model(canned: CannedServer, run: Run) -> None:
    groups = [
        {"name": "gpt-5", "model_calls": 2, **used(420, 65, 1.5, 0.5)},
        {"name": None, "model_calls": 0, **used(0, 0, 0.25)},
    ]
    canned.reply(
        "/api/v1/stats",
        {
            "total_traces": 2,
            "traces_with_errors": 0,
            "error_rate": 0.0,
            "total_spans": 9,
            "total_errors": 0,
            "duration_ms": {"p50": 1.5, "p95": 9.0, "p99": 9.0},
            **used(420, 65, 1.75, 0.5),
            "by_model": groups,
        },
    )

    lines = run("stats", "--url", canned.url).stdout.splitlines()

    assert "Cost      1.75 (0.5 of it estimated)" in lines
    assert [line.split() for line in lines[-2:]] == [
        ["gpt-5", "2", "420/65", "~1.50"],
        ["(no", "model)", "0", "0.25"],
    ]
