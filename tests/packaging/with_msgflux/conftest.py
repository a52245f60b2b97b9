"""The environment of a user of msgflux, with our wheel; a model, and a msgtrace to share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.processes import free_ports, wait_until
from tests.integration.openai_stub import openai_stub
from tests.packaging.conftest import Built
from tests.packaging.environment import Environment

MSGFLUX = ("msgflux[openai,httpx]==0.5.1", "msgtrace-sdk==1.2.0")
"""The releases whose ways the integration knows; httpx, because msgflux loads every provider."""

PROGRAMS = Path(__file__).with_name("programs.py")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has installed msgflux and msgtrace, and has a model at `stub_url`."""

    environment: Environment
    stub_url: str

    @property
    def model(self) -> dict[str, str]:
        """The variables that lead openai to the model."""
        return {"OPENAI_BASE_URL": self.stub_url, "OPENAI_API_KEY": "none", "NO_PROXY": "*"}

    def program(self, name: str, argument: object) -> list[str | Path]:
        """The arguments of Python that run one of programs.py; -P: its folder is not searched."""
        return ["-P", PROGRAMS, name, str(argument)]

    def run(self, program: str, argument: object, **variables: str) -> str:
        """Run one of programs.py, which must end well and complain of nothing; what it wrote."""
        done = self.environment.run(
            "python", *self.program(program, argument), variables=self.model | variables
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


@dataclass(frozen=True, slots=True)
class Server:
    """A running msgtrace of that environment."""

    port: int
    database: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """The JSON of a successful GET."""
        answer = httpx.get(self.url + path, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def take(self) -> list[Trace]:
        """Every trace, oldest first. They are deleted, for the next test."""
        found = [
            Trace(
                self.get(f"/api/v1/traces/{each['trace_id']}"),
                self.get(f"/api/v1/traces/{each['trace_id']}/tree")["roots"],
            )
            for each in reversed(self.get("/api/v1/traces?limit=1000")["traces"])
        ]
        httpx.delete(f"{self.url}/api/v1/traces?all=true", trust_env=False)
        return found


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as the query API tells it."""

    summary: Mapping[str, Any]
    roots: list[Mapping[str, Any]]

    @property
    def tree(self) -> Tree:
        """The one tree of the trace."""
        (root,) = self.roots
        return tree_of(root)

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output."""
        return self.summary["input_tokens"], self.summary["output_tokens"]

    def spans(self, name: str) -> list[Mapping[str, Any]]:
        """Those of this name."""
        return [span for span in self.summary["spans"] if span["name"] == name]


Tree = tuple[str, tuple["Tree", ...]]
"""The name of a span, and the trees below it in the order of their names."""


def tree_of(node: Mapping[str, Any]) -> Tree:
    """The tree below a node of the API's reply."""
    return node["span"]["name"], tuple(sorted(tree_of(child) for child in node["children"]))


@pytest.fixture(scope="session")
def stub_url() -> Iterator[str]:
    with openai_stub() as url:
        yield url


@pytest.fixture(scope="session")
def user(built: Built, stub_url: str, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Made once; programs leave nothing in it."""
    environment = Environment.create_quickly(
        tmp_path_factory.mktemp("user"),
        f"{built.wheel}[integration]",
        *MSGFLUX,
        "opentelemetry-instrumentation-starlette",
        "opentelemetry-instrumentation-sqlite3",
    )
    return User(environment, stub_url)


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A msgtrace on one port that programs attach to, without any trace."""
    yield shared_server
    shared_server.take()


@pytest.fixture(scope="session")
def shared_server(user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    (port,) = free_ports(1)
    database = tmp_path_factory.mktemp("server") / "traces.db"
    process = subprocess.Popen(
        [
            *(user.environment.folder / "bin" / "msgtrace", "start", "--one-port"),
            *("--port", str(port), "--database-url", f"sqlite:///{database}"),
        ],
        env=user.environment.variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(port), "msgtrace to answer", 90)
        yield Server(port, database)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
