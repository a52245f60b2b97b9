"""`msgtrace-admin` status, purge, partitions, vacuum and doctor, on both kinds of databases."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from msgtrace.cli import admin
from msgtrace.cli import purge as purge_command
from msgtrace.maintenance.retention import RetentionPolicy, run_retention
from msgtrace.model.units import rfc3339
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from tests.contract.purging import midnight, trace_at
from tests.contract.reading import find
from tests.postgres_server import execute_each

pytestmark = pytest.mark.usefixtures("filled")

on_sqlite = pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize(
    "storage_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@pytest.fixture
def filled(storage_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two old traces, one over the edge of five days ago, one of today."""
    monkeypatch.setenv("MSGTRACE_DATABASE_URL", storage_url)
    monkeypatch.setenv("MSGTRACE_SPILL_DIR", str(tmp_path / "spill"))

    async def fill(storage: Storage) -> None:
        await storage.maintenance.make_partitions(2)
        for batch in (
            trace_at("old", midnight(-9), midnight(-9) + 1),
            trace_at("older", midnight(-12)),
            trace_at("long", midnight(-9), midnight(-1)),
            trace_at("new", time.time_ns()),
        ):
            await storage.write_spans([batch])

    on_storage(storage_url, fill)


def on_storage(url: str, work: Callable[[Storage], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with open_storage(Settings(database_url=url)) as storage:
            return await work(storage)

    return asyncio.run(run())


def execute(url: str, *statements: str) -> None:
    """As somebody with access to the database would."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
    else:
        execute_each(url, *statements)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(admin.main, arguments)


def findings(*arguments: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """The exit code of the doctor, and level, message and cure by check."""
    result = run("doctor", "--json", *arguments)
    rows = json.loads(result.stdout)["findings"]
    return result.exit_code, {
        row["check"]: (row["level"], row["message"], row["cure"]) for row in rows
    }


def total(url: str) -> int:
    async def count(storage: Storage) -> int:
        return (await find(storage)).total

    found: int = on_storage(url, count)
    return found


# status


def test_status_shows_what_there_is(storage_url: str) -> None:
    status = json.loads(run("status", "--json").stdout)

    assert (status["trace_count"], status["span_count"], status["is_exact"]) == (4, 6, True)
    assert status["oldest_ns"] == midnight(-12)
    assert 0 <= time.time_ns() - status["newest_ns"] < 60e9
    assert status["spans_per_s"] == pytest.approx(1 / 60)
    assert status["migrations"][0].startswith("0001_")
    assert (status["partitions"] > 3) == (not storage_url.startswith("sqlite"))


def test_status_tells_of_retention(storage_url: str) -> None:
    assert "has never run" in run("status").stdout
    policy = RetentionPolicy(max_age_s=5 * 86_400)
    on_storage(storage_url, lambda storage: run_retention(storage.maintenance, policy))

    assert "in all 4 spans of 2 traces deleted" in run("status").stdout


# purge


def test_purge_without_yes_shows_what_would_go_and_deletes_nothing(storage_url: str) -> None:
    result = run("purge", "5d")

    assert result.exit_code == 0
    assert "would be deleted" in result.stdout
    assert "Traces" in result.stdout
    assert "--yes" in result.stdout
    assert total(storage_url) == 4


def test_purge_with_yes_deletes_and_says_what(storage_url: str) -> None:
    result = run("purge", "5d", "--yes")

    assert (result.exit_code, result.stdout) == (
        0,
        "Deleted 4 spans of 2 traces, 1 trace shortened.\n",
    )
    assert total(storage_url) == 2
    assert run("purge", "5d", "--yes").stdout == "Deleted 0 spans of 0 traces.\n"
    assert run("purge", "5d").stdout.startswith("Nothing started before ")


def test_purge_takes_a_time_and_prints_json(storage_url: str) -> None:
    result = json.loads(run("purge", rfc3339(midnight(-10)), "--yes", "--json").stdout)

    assert result["plan"]["before_ns"] == midnight(-10)
    assert result["deleted"] == {
        "spans": 1,
        "traces": 1,
        "shortened": 0,
        "partitions": 0 if storage_url.startswith("sqlite") else 1,
    }
    assert json.loads(run("purge", "5d", "--json").stdout)["deleted"] is None


def test_purge_leaves_the_work_to_another_process_that_is_at_it(storage_url: str) -> None:
    async def purge_twice(storage: Storage) -> Result:
        async with storage.maintenance.purging():
            return await asyncio.to_thread(run, "purge", "5d", "--yes")

    result = on_storage(storage_url, purge_twice)

    assert result.exit_code == 1
    assert "another process is purging" in result.stderr
    assert total(storage_url) == 4


def test_purge_says_how_far_it_came_when_it_is_interrupted(
    storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupt(purger: Any, before_ns: int, on_step: Callable[[Any], None]) -> None:
        async for step in purger.purge(before_ns):
            on_step(step)
            raise KeyboardInterrupt

    monkeypatch.setattr(purge_command, "purge_all", interrupt)
    result = run("purge", "5d", "--yes")
    monkeypatch.undo()

    assert result.exit_code == 130
    assert "The same command goes on from here." in result.stderr
    monkeypatch.setenv("MSGTRACE_DATABASE_URL", storage_url)
    assert run("purge", "5d", "--yes").exit_code == 0
    assert total(storage_url) == 2


# partitions and vacuum


def test_partitions_are_shown_and_made_ahead_or_refused(storage_url: str) -> None:
    result = run("partitions", "--ahead", "3")
    if storage_url.startswith("sqlite"):
        assert (result.exit_code, result.stdout) == (1, "")
        assert "a SQLite file has no partitions" in result.stderr
        return

    assert result.stdout.startswith("made spans_")
    assert "spans_default" in result.stdout
    shown = json.loads(run("partitions", "--json").stdout)
    assert shown["made"] == []
    assert max(each["end_ns"] or 0 for each in shown["partitions"]) == midnight(4)


@pytest.mark.parametrize("flags", [[], ["--full"]])
def test_vacuum_says_what_the_database_takes(storage_url: str, flags: list[str]) -> None:
    result = run("vacuum", *flags)

    assert result.exit_code == 0
    assert result.stdout.startswith("The database takes ")
    assert total(storage_url) == 4


# doctor


def test_the_doctor_finds_nothing_wrong_with_a_sound_database() -> None:
    code, found = findings()

    assert code == 0
    assert {level for level, _, _ in found.values()} == {"ok"}
    assert {"settings", "version", "permissions", "indexes", "summaries", "retention"} <= set(found)
    assert run("doctor").stdout.endswith("0 problems, 0 warnings.\n")


def test_the_doctor_finds_a_missing_index(storage_url: str) -> None:
    execute(storage_url, "DROP INDEX traces_newest")

    code, found = findings()

    assert code == 1
    assert found["indexes"][:2] == ("problem", "missing: traces_newest")
    assert "migrations" in found["indexes"][2]


def test_the_doctor_finds_summaries_that_drifted(storage_url: str) -> None:
    execute(storage_url, "UPDATE traces SET span_count = 7 WHERE root_span_name = 'new 0'")

    code, found = findings()

    assert code == 1
    assert found["summaries"][0] == "problem"
    assert "1 of 4 sampled" in found["summaries"][1]
    assert "rebuild-summaries" in found["summaries"][2]


def test_the_doctor_finds_summaries_whose_spans_are_gone(storage_url: str) -> None:
    execute(storage_url, "DELETE FROM spans WHERE name = 'old 0' OR name = 'old 1'")

    assert "1 of 4 sampled" in findings()[1]["summaries"][1]


def test_the_doctor_finds_a_retention_that_does_not_run() -> None:
    code, found = findings("--retention", "30d")

    assert code == 1
    assert found["retention"][:2] == ("problem", "has never succeeded")


def test_the_doctor_is_content_with_a_retention_that_ran(storage_url: str) -> None:
    policy = RetentionPolicy(max_age_s=86_400)
    on_storage(storage_url, lambda storage: run_retention(storage.maintenance, policy))

    assert findings("--retention", "1d")[1]["retention"][0] == "ok"


def test_the_doctor_finds_misspelt_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGTRACE_RETENTON", "30d")

    code, found = findings()

    assert code == 0
    assert found["settings"][0] == "warning"
    assert "did you mean MSGTRACE_RETENTION?" in found["settings"][1]


def test_the_doctor_finds_a_sender_whose_clock_is_ahead(storage_url: str) -> None:
    on_storage(storage_url, lambda storage: storage.write_spans([trace_at("x", midnight(9))]))

    assert findings()[1]["sender clocks"][0] == "warning"


def test_the_doctor_finds_pending_migrations(storage_url: str) -> None:
    execute(storage_url, "DELETE FROM schema_migrations WHERE number > 1")

    code, found = findings()

    assert code == 1
    assert "msgtrace-admin migrate" in found["database"][1]


@on_sqlite
def test_the_doctor_finds_a_file_that_others_may_read(storage_url: str) -> None:
    Path(storage_url.removeprefix("sqlite:///")).chmod(0o644)

    assert findings()[1]["permissions"][0] == "warning"


@on_postgres
def test_the_doctor_finds_partitions_that_are_missing_or_lack_an_index(storage_url: str) -> None:
    partitions = json.loads(run("partitions", "--json").stdout)["partitions"]
    tomorrow = next(each["name"] for each in partitions if each["first_ns"] == midnight(1))
    execute(storage_url, f"DROP TABLE {tomorrow}")

    code, found = findings()

    assert code == 1
    assert "none for tomorrow" in found["partitions"][1]
    assert run("partitions", "--ahead", "1").exit_code == 0
    assert findings()[0] == 0
    execute(storage_url, "CREATE INDEX lonely ON ONLY spans (end_time_ns)")
    assert "partitions without an index" in findings()[1]["indexes"][1]


@contextmanager
def user_with(storage_url: str, rights: str) -> Iterator[str]:
    """The database's URL for a user who may do so much with all tables."""
    role = f"{database_of(storage_url)}_user"
    execute(
        storage_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}",
    )
    try:
        yield storage_url.replace("postgres:@", f"{role}:x@", 1)
    finally:
        execute(storage_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def database_of(storage_url: str) -> str:
    return storage_url.partition("?")[0].rpartition("/")[2]


@on_postgres
def test_the_doctor_finds_a_user_without_the_rights(storage_url: str) -> None:
    with user_with(storage_url, "SELECT") as url:
        code, found = findings("--database-url", url)

    assert code == 1
    assert "may not read and write spans" in found["permissions"][1]


@on_postgres
def test_the_doctor_finds_a_user_without_temporary_tables(storage_url: str) -> None:
    database = database_of(storage_url)
    execute(storage_url, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    with user_with(storage_url, "SELECT, INSERT, UPDATE, DELETE") as url:
        code, found = findings("--database-url", url)

    assert code == 1
    assert "may not make temporary tables" in found["permissions"][1]


def test_the_doctor_finds_a_database_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    code, found = findings("--database-url", f"sqlite:///{tmp_path / 'folder'}")

    assert code == 1
    assert found["database"][0] == "problem"
