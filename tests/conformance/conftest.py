"""Fixtures of the conformance tests: one collector on each database for all of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.collectors import GIVEN, IS_GIVEN, Collector, needs_own_collector
from tests.conformance.wires import WIRES, Wire
from tests.conftest import BACKENDS
from tests.end_to_end.conftest import pytest_runtest_makereport  # noqa: F401 - the hook, here too
from tests.end_to_end.processes import NO_SPILL, running
from tests.postgres_server import cloned_database

HERE = Path(__file__).parent

SMALL_LIMIT = 64 * 1024
"""The limit of a request where `limited` is used."""

ALLOWED_ORIGIN = "https://app.example"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture(scope="session", params=["given"] if IS_GIVEN else BACKENDS)
def collector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    """The collector under test. Tests share it: each uses traces of its own."""
    if request.param == "given":
        yield GIVEN
    elif request.param == "sqlite":
        path = tmp_path_factory.mktemp("database") / "msgtrace.db"
        with running("start", f"sqlite:///{path}") as process:
            yield Collector.of(process)
    else:
        admin_url = request.getfixturevalue("postgres_admin_url")
        template = request.getfixturevalue("postgres_template")
        with (
            cloned_database(admin_url, template) as url,
            running("start", url, environment=NO_SPILL) as process,
        ):
            yield Collector.of(process)


@pytest.fixture(scope="session")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with a limit of SMALL_LIMIT, for browsers too, that discards other signals."""
    environment = {
        "MSGTRACE_MAX_REQUEST_BYTES": str(SMALL_LIMIT),
        "MSGTRACE_OTLP_CORS_ORIGINS": ALLOWED_ORIGIN,
        "MSGTRACE_OTHER_SIGNALS": "discard",
    }
    yield from _own(tmp_path_factory, environment)


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that takes one request at a time: several together may hold one byte."""
    yield from _own(tmp_path_factory, {"MSGTRACE_MAX_INFLIGHT_BYTES": "1"})


@pytest.fixture(params=WIRES, ids=lambda wire: wire.name)
def wire(request: pytest.FixtureRequest) -> Wire:
    """Each transport with each encoding."""
    assert isinstance(request.param, Wire)
    return request.param


@pytest.fixture
def trace_id() -> bytes:
    """A trace of the test's own."""
    return secrets.token_bytes(16)


def _own(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[Collector]:
    if IS_GIVEN:
        needs_own_collector()
    path = tmp_path_factory.mktemp("database") / "msgtrace.db"
    with running("start", f"sqlite:///{path}", environment=environment) as process:
        yield Collector.of(process)
