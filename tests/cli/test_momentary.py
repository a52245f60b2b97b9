"""Commands that read find what is stored in a file, also where no service runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.batches import TRACE_A, make_batch, span
from tests.cli.conftest import Run
from tests.end_to_end.processes import free_ports


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the settings, not there yet; nobody listens where the settings say."""
    path = tmp_path / "traces.db"
    (port,) = free_ports(1)
    monkeypatch.setenv("MSGTRACE_DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("MSGTRACE_PORT", str(port))
    return path


@pytest.fixture
async def stored(database: Path) -> None:
    """One trace in the file."""
    async with open_storage(Settings(database_url=f"sqlite:///{database}")) as storage:
        await storage.write_spans([make_batch(span("GET /cart"))])


def test_list_and_show_read_the_file_where_no_service_runs(stored: None, run: Run) -> None:
    listed = run("list", "--json")
    assert listed.exit_code == 0, listed.output
    (trace,) = json.loads(listed.output)["traces"]
    assert trace["trace_id"] == TRACE_A.hex()

    shown = run("show", trace["trace_id"])

    assert shown.exit_code == 0, shown.output
    assert "GET /cart" in shown.output


def test_clear_deletes_in_the_file(stored: None, run: Run) -> None:
    assert run("clear", "--yes").exit_code == 0

    assert json.loads(run("list", "--json").output)["traces"] == []


def test_an_address_that_was_given_is_asked_and_no_other(stored: None, run: Run) -> None:
    (port,) = free_ports(1)

    done = run("list", "--url", f"127.0.0.1:{port}")

    assert done.exit_code == 1
    assert f"no msgtrace query service at http://127.0.0.1:{port}" in done.output


def test_no_file_is_made_by_a_command_that_reads(database: Path, run: Run) -> None:
    done = run("list")

    assert done.exit_code == 1
    assert "no msgtrace query service" in done.output
    assert not database.exists()


def test_a_file_that_is_no_database_is_an_error(database: Path, run: Run) -> None:
    database.write_text("no database, and long enough to be looked at as if it were one " * 20)

    done = run("list")

    assert done.exit_code != 0
    assert str(database) in done.output
