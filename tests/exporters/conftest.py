"""Fixtures of the exporter tests: a running service, and the senders of other languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import (
    forget_ended_processes,
    no_proxy,
    pytest_runtest_makereport,
    shared_database_url,
)
from tests.end_to_end.processes import NO_SPILL, RunningProcess, running
from tests.exporters.senders import Senders
from tests.postgres_server import cloned_database

__all__ = [
    "forget_ended_processes",
    "no_proxy",
    "pytest_runtest_makereport",
    "shared_database_url",
]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; where tests run side by side, one process builds all."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.exporters)
            item.add_marker(pytest.mark.xdist_group("exporters"))


@pytest.fixture(scope="session")
def senders(tmp_path_factory: pytest.TempPathFactory) -> Senders:
    """Built in a folder of this session."""
    return Senders(tmp_path_factory.mktemp("senders"))


@pytest.fixture(scope="module")
def service(shared_database_url: str) -> Iterator[RunningProcess]:
    """`msgtrace start` on each database. Tests share it: each uses traces of its own."""
    with running("start", shared_database_url, environment=NO_SPILL) as process:
        yield process


@pytest.fixture(scope="module")
def sqlite_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProcess]:
    """`msgtrace start` on SQLite alone."""
    url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'msgtrace.db'}"
    with running("start", url) as process:
        yield process


@pytest.fixture(scope="module")
def postgres_service(postgres_admin_url: str, postgres_template: str) -> Iterator[RunningProcess]:
    """`msgtrace start` on PostgreSQL alone."""
    with (
        cloned_database(postgres_admin_url, postgres_template) as url,
        running("start", url, environment=NO_SPILL) as process,
    ):
        yield process
