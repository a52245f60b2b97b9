"""Fixtures of the end-to-end tests: a running service on each database, shared by a module."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.conftest import BACKENDS
from tests.end_to_end.processes import NO_SPILL, STARTED, RunningProcess, running
from tests.postgres_server import cloned_database

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the services printed beside the failure."""
    report = yield
    if report.failed:
        for process in STARTED:
            title = f"{process.command} (pid {process.popen.pid})"
            report.sections.append((f"{title} stderr", process.stderr))
            report.sections.append((f"{title} stdout", process.stdout))
    return report


@pytest.fixture(autouse=True)
def forget_ended_processes() -> Iterator[None]:
    """A failure shows the output of its own services only."""
    yield
    STARTED[:] = [process for process in STARTED if process.is_running]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporters reach loopback directly."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module", params=BACKENDS)
def shared_database_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A fresh database of each backend for a whole module."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'msgtrace.db'}"
        return
    admin_url = request.getfixturevalue("postgres_admin_url")
    template = request.getfixturevalue("postgres_template")
    with cloned_database(admin_url, template) as url:
        yield url


@pytest.fixture(scope="module")
def service(shared_database_url: str) -> Iterator[RunningProcess]:
    """`msgtrace start` on each database. Tests share it: each uses traces of its own."""
    with running("start", shared_database_url, environment=NO_SPILL) as process:
        yield process
