"""Every program of docs/examples does what it says, in the environment of a user."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.processes import can_connect, free_ports, wait_until
from tests.packaging.conftest import ROOT
from tests.packaging.with_msgflux.conftest import Server, User
from tests.packaging.with_msgflux.test_trees import AGENT, TOKENS

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("msgflux"),
]

EXAMPLES = ROOT / "docs" / "examples"
TRIED = {
    "plain_opentelemetry",
    "web_service",
    "msgflux_agent",
    "query_with_httpx",
    "sql_on_sqlite",
}


def run_example(user: User, server: Server, name: str, *arguments: str | Path) -> str:
    """What the program printed; it found `server` by MSGTRACE_PORT, and complained of nothing."""
    done = user.environment.run(
        "python",
        EXAMPLES / f"{name}.py",
        *arguments,
        variables=user.model | {"MSGTRACE_PORT": str(server.port)},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_every_example_is_tried_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TRIED


def test_plain_opentelemetry(user: User, server: Server) -> None:
    assert run_example(user, server, "plain_opentelemetry") == "hello, traces\n"

    (trace,) = server.take()
    assert trace.tree == ("hello", ())
    assert trace.summary["service_name"] == "plain_opentelemetry"


@pytest.fixture
def orders(user: User, server: Server) -> Iterator[str]:
    """The URL of the running web service."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [
            *(user.environment.folder / "bin" / "python", "-m", "uvicorn", "web_service:app"),
            *("--app-dir", EXAMPLES, "--port", str(port), "--log-level", "warning"),
        ],
        env=user.environment.variables | {"MSGTRACE_PORT": str(server.port)},
    )
    try:
        wait_until(lambda: can_connect(port), "the web service to listen", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)


def test_web_service(orders: str, server: Server) -> None:
    answers = [httpx.get(f"{orders}/orders/{number}", trust_env=False) for number in (7, 8)]

    assert [answer.status_code for answer in answers] == [200, 404]

    def arrived() -> bool:
        return len(server.get("/api/v1/traces?name=SELECT")["traces"]) == 2

    wait_until(arrived, "both requests to be stored")
    requests = [trace for trace in server.take() if trace.spans("SELECT")]
    for trace in requests:
        name, below = trace.tree
        assert name == "GET /orders/{order_id:int}"
        assert ("SELECT", ()) in below
        assert trace.summary["service_name"] == "orders"


def test_an_agent_and_two_ways_to_ask_for_it(user: User, server: Server) -> None:
    assert run_example(user, server, "msgflux_agent") == "42, and sunny.\n"

    told = run_example(user, server, "query_with_httpx")
    assert told.split() == [told.split()[0], "ms", str(sum(TOKENS)), "tokens", "Weather", "Agent"]

    summed = run_example(user, server, "sql_on_sqlite", server.database).splitlines()
    assert f"gpt-4o-mini\t2\t{TOKENS[0]}\t{TOKENS[1]}" in summed
    assert [line.split("\t")[1] for line in summed if line.startswith("openai.chat\t")] == ["2"]

    (trace,) = server.take()
    assert trace.tree == AGENT
