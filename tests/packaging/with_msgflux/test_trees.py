"""What released msgflux does arrives as one tree, whatever was imported or set first."""

from __future__ import annotations

import pytest

from tests.packaging.with_msgflux.conftest import Server, Tree, User

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("msgflux"),
]

MODEL_CALL: Tree = ("Generator", (("openai.chat", ()),))
TOOLS: Tree = ("scatter_gather", (("Add", ()), ("Get Weather", ())))
AGENT: Tree = (
    "Weather Agent",
    (MODEL_CALL, MODEL_CALL, ("Weather Agent Tool Library", (TOOLS,))),
)
TOKENS = (120 + 180, 30 + 12)
COST = pytest.approx(TOKENS[0] * 0.15e-6 + TOKENS[1] * 0.60e-6)
"""In US dollars, by the list price of gpt-4o-mini; neither msgflux nor the model states one."""


@pytest.mark.parametrize(
    ("program", "sdk"),
    [
        ("helper_first", "off"),
        ("helper_first", "to us"),
        ("msgflux_first", "off"),
        ("msgflux_imported_first", "to us"),
        ("msgflux_imported_first", "console"),
        ("own_provider_first", "off"),
        ("own_provider_and_msgflux_first", "off"),
    ],
)
def test_one_turn_of_an_agent_is_one_trace(
    user: User, server: Server, program: str, sdk: str
) -> None:
    variables = {} if sdk == "off" else {"MSGTRACE_TELEMETRY_ENABLED": "true"}
    if sdk == "console":
        variables["MSGTRACE_EXPORTER"] = "console"
    else:
        variables["MSGTRACE_OTLP_ENDPOINT"] = f"{server.url}/api/v1/traces/export"
    user.run(program, server.port, **variables)

    (trace,) = server.take()
    assert trace.tree == AGENT
    assert trace.tokens == TOKENS
    assert (trace.summary["cost"], trace.summary["estimated_cost"]) == (COST, COST)
    assert trace.summary["models"] == ["gpt-4o-mini"]


def test_threads_tasks_and_streams_stay_in_their_trace(user: User, server: Server) -> None:
    user.run("nests", server.port)

    traces = {trace.roots[0]["span"]["name"]: trace for trace in server.take()}
    assert set(traces) == {
        *("Crew", "Failing", "request", "Weather Agent", "asynchronous", "outside", "stray"),
    }
    worker: Tree = ("Worker", (("work", ()),))
    assert traces["Crew"].tree == ("Crew", (("map_gather", (worker, worker)),))
    assert traces["request"].tree == ("request", (AGENT,))
    # The stream is read in the thread of `spawn`, which ends before it.
    read, wait = ("spawn", (("openai.chat", ()),)), ("wait_for_event", ())
    assert traces["Weather Agent"].tree == ("Weather Agent", (("Generator", (read, wait)), wait))
    ((agent_name, below),) = traces["asynchronous"].tree[1]
    assert agent_name == "Weather Agent"
    ((gather, tools),) = below[-1][1]
    assert gather == "ascatter_gather"
    assert ("Measure", (("thermometer", ()),)) in tools
    (failed,) = traces["Failing"].spans("Failing")
    assert [event["name"] for event in failed["events"]] == ["exception"]
    assert failed["status"] == {"status_code": "ERROR", "description": "once"}
    assert failed["attributes"]["span.type"] == "flow"


def test_a_module_inside_the_request_of_a_web_application(user: User, server: Server) -> None:
    assert user.run("crosses_a_request", server.port) == "42, and sunny."

    (trace,) = server.take()
    name, below = trace.tree
    assert name == "GET /ask"
    assert "Weather Agent" in [child for child, _ in below]
    assert trace.tokens == TOKENS


def test_stop_leaves_the_sdk_as_it_was(user: User, server: Server) -> None:
    done = user.environment.run(
        "python", *user.program("leaves_no_trace", server.port), variables=user.model
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "False 8 True"
    assert "enable_state_dict is ignored" in done.stderr


def test_an_sdk_whose_spans_nest_is_left_alone(user: User, server: Server) -> None:
    assert user.run("leaves_a_mended_sdk_alone", server.port) == "True"
