from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

from msgtrace.cli import admin, database
from msgtrace.errors import SchemaMismatch
from msgtrace.model.maintenance import RetentionState
from msgtrace.settings.table import Settings
from msgtrace.storage.protocol import StorageStatus

STATUS = StorageStatus(
    backend="sqlite",
    url="sqlite:////data/traces.db",
    server_version="SQLite 3.50.1",
    schema_version=2,
    database_bytes=3 * 1024 * 1024,
    trace_count=1_200,
    span_count=3_400,
    is_exact=False,
    oldest_ns=None,
    newest_ns=None,
    spans_per_s=12.25,
    partitions=3,
    migrations=["0001_first", "0002_next"],
    retention=RetentionState(),
)


class FakeStorage:
    """Knows its status and how it was opened."""

    opened_with: Settings

    async def get_status(self) -> StorageStatus:
        return STATUS


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> FakeStorage:
    fake = FakeStorage()

    @asynccontextmanager
    async def open_fake(settings: Settings) -> AsyncIterator[FakeStorage]:
        fake.opened_with = settings
        yield fake

    monkeypatch.setattr(database, "open_storage", open_fake)
    return fake


def make_migrate(monkeypatch: pytest.MonkeyPatch, outcome: list[str] | Exception) -> None:
    async def migrate(_: Settings) -> list[str]:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(admin, "migrate_database", migrate)


@pytest.mark.usefixtures("no_variables")
def test_status_shows_the_database_and_never_migrates(storage: FakeStorage) -> None:
    result = CliRunner().invoke(admin.main, ["status", "--database-url", STATUS.url])

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Backend     sqlite",
        "Server      SQLite 3.50.1",
        "URL         sqlite:////data/traces.db",
        "Schema      version 2 (0002_next)",
        "Size        3 MiB",
        "Traces      about 1,200",
        "Spans       about 3,400",
        "Oldest      none",
        "Newest      none",
        "Comes in    12.2 spans/s, over the last minute",
        "Partitions  3",
        "Retention   has never run",
    ]
    assert storage.opened_with == Settings(database_url=STATUS.url, auto_migrate=False)


@pytest.mark.usefixtures("storage")
def test_status_as_json() -> None:
    result = CliRunner().invoke(admin.main, ["status", "--json"])

    assert json.loads(result.stdout)["span_count"] == 3_400


@pytest.mark.parametrize(
    ("arguments", "applied", "said"),
    [
        ([], ["0001_first", "0002_next"], "applied 0001_first\napplied 0002_next\n"),
        ([], [], "The schema is up to date.\n"),
        (["--json"], ["0001_first"], '{"applied":["0001_first"]}\n'),
        (["--json"], [], '{"applied":[]}\n'),
    ],
)
def test_migrate_says_what_it_applied(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], applied: list[str], said: str
) -> None:
    make_migrate(monkeypatch, applied)

    result = CliRunner().invoke(admin.main, ["migrate", *arguments])

    assert (result.exit_code, result.stdout) == (0, said)


def test_a_schema_that_does_not_fit_ends_as_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    make_migrate(monkeypatch, SchemaMismatch("migration 0001 was changed after it was applied"))

    result = CliRunner().invoke(admin.main, ["migrate"])

    assert result.exit_code == 1
    assert result.stderr == "Error: migration 0001 was changed after it was applied\n"


@pytest.mark.parametrize("age", ["5", "five", "0d", "-5d", "5y", "5 d", "2026-03-01", ""])
def test_purge_refuses_what_is_no_age_before_it_opens_a_database(age: str) -> None:
    result = CliRunner().invoke(admin.main, ["purge", "--yes", "--", age])

    assert result.exit_code == 2
    assert "36h, 30d or 8w" in result.stderr
