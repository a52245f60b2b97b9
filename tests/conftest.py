"""Fixtures that every folder of tests shares: both databases, and a clean environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from msgtrace.otlp.encodings import use_decoder
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import migrate_database, open_storage
from msgtrace.storage.protocol import Storage
from tests.postgres_server import (
    cloned_database,
    execute_each,
    postgres_server,
    with_database,
)

BACKENDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]

DECODER = os.environ.get("MSGTRACE_DECODER", "auto")
"""What decodes in the tests' process and in those that they start: a setting of the whole run."""

_TEMPLATE = f"msgtrace_template_{os.getpid()}"


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No setting of the person who runs the tests reaches them, no file of theirs is touched.

    But for DECODER, which each test begins with, whatever the one before has chosen.
    """
    for name in [name for name in os.environ if name.startswith(("MSGTRACE_", "OTEL_"))]:
        monkeypatch.delenv(name)
    use_decoder(DECODER)
    if DECODER != "auto":
        monkeypatch.setenv("MSGTRACE_DECODER", DECODER)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even that of the decoder, for tests of what holds where nothing is set."""
    monkeypatch.delenv("MSGTRACE_DECODER", raising=False)


@pytest.fixture(scope="session")
def postgres_admin_url() -> Iterator[str]:
    """A database on a running server, from which others are made."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_admin_url: str) -> Iterator[str]:
    """A migrated database that each test clones; cloning is much faster than migrating."""
    execute_each(
        postgres_admin_url, f"DROP DATABASE IF EXISTS {_TEMPLATE}", f"CREATE DATABASE {_TEMPLATE}"
    )
    asyncio.run(
        migrate_database(Settings(database_url=with_database(postgres_admin_url, _TEMPLATE)))
    )
    yield _TEMPLATE
    execute_each(postgres_admin_url, f"DROP DATABASE {_TEMPLATE}")


@pytest.fixture
def postgres_url(postgres_admin_url: str, postgres_template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    with cloned_database(postgres_admin_url, postgres_template) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_admin_url: str) -> Iterator[str]:
    """A fresh database without any table."""
    with cloned_database(postgres_admin_url, "template1") as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'msgtrace.db'}"


@pytest.fixture(params=BACKENDS)
def storage_url(request: pytest.FixtureRequest) -> str:
    """A database of each backend."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def settings(storage_url: str) -> Settings:
    """Settings for a database of each backend, on free ports."""
    return Settings(database_url=storage_url, grpc_port=0, http_port=0, port=0)


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """An open storage of each backend."""
    async with open_storage(settings) as opened:
        yield opened
