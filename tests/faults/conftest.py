"""Fixtures of the fault tests: the seed, shown with each failure, and a server to be broken."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import STARTED
from tests.faults.private_postgres import PrivatePostgres, private_postgres

HERE = Path(__file__).parent

SEED = int(os.environ.get("FAULTS_SEED", random.SystemRandom().randrange(2**32)))
"""FAULTS_SEED repeats the choices of a run; the moments of the faults still differ."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed, and what the collectors printed, beside the failure."""
    report = yield
    if report.failed and HERE in item.path.parents:
        report.sections.append(("seed", f"FAULTS_SEED={SEED}"))
        for process in STARTED:
            title = f"{process.command} (pid {process.popen.pid})"
            report.sections.append((f"{title} stderr", process.stderr[-8000:]))
    return report


@pytest.fixture(autouse=True)
def forget_ended_processes() -> Iterator[None]:
    """A failure shows the output of its own services only."""
    yield
    STARTED[:] = [process for process in STARTED if process.is_running]


@pytest.fixture
def seed() -> int:
    return SEED


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """A PostgreSQL server that only the tests of one module break, one after the other."""
    with private_postgres() as running:
        yield running


@pytest.fixture(autouse=True)
def server_is_up(request: pytest.FixtureRequest) -> None:
    """A test that failed must not take the next ones with it."""
    if "server" in request.fixturenames:
        running: PrivatePostgres = request.getfixturevalue("server")
        running.ensure_running()
