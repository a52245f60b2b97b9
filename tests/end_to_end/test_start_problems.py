"""A start that cannot succeed ends within seconds, with one sentence that names the offender."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgtrace.settings.table import Settings
from msgtrace.storage.factory import migrate_database
from tests.end_to_end.processes import Ports, free_ports, run_to_end, running
from tests.postgres_server import execute_each


def problem_of(command: str, database_url: str, *, log: str = "", **variables: str) -> str:
    """The one sentence on standard error of a start that fails.

    log: the event that may be logged before it while the start waits; by default none.
    """
    ports = Ports.free()
    environment = {
        "MSGTRACE_DATABASE_URL": database_url,
        "MSGTRACE_GRPC_PORT": str(ports.grpc),
        "MSGTRACE_HTTP_PORT": str(ports.http),
        "MSGTRACE_PORT": str(ports.query),
        "MSGTRACE_CONNECT_TIMEOUT_S": "1",
    }

    ended = run_to_end(command, environment=environment | variables)

    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    *before, sentence = ended.stderr.splitlines()
    assert [line for line in before if not log or log not in line] == []
    assert sentence.startswith("Error: ")
    return sentence


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "msgtrace.db"


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("start", "MSGTRACE_GRPC_PORT"),
        ("start", "MSGTRACE_HTTP_PORT"),
        ("start", "MSGTRACE_PORT"),
        ("collector", "MSGTRACE_GRPC_PORT"),
        ("collector", "MSGTRACE_HTTP_PORT"),
        ("query", "MSGTRACE_PORT"),
    ],
)
def test_a_port_in_use_is_named_with_its_setting(
    command: str, variable: str, taken_port: int, sqlite_url: str
) -> None:
    problem = problem_of(command, sqlite_url, **{variable: str(taken_port)})

    assert f"port {taken_port} on 127.0.0.1 is taken" in problem
    assert variable in problem


def test_a_second_service_on_the_same_ports_says_so(storage_url: str) -> None:
    with running("start", storage_url) as first:
        problem = problem_of("start", storage_url, MSGTRACE_GRPC_PORT=str(first.ports.grpc))

        assert f"port {first.ports.grpc}" in problem
        assert first.get("/ready") == {"status": "ready"}


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
@pytest.mark.parametrize("command", ["start", "query"])
def test_an_address_that_is_not_of_this_machine_is_named(
    command: str, host: str, sqlite_url: str
) -> None:
    problem = problem_of(command, sqlite_url, MSGTRACE_HOST=host)

    assert host in problem
    assert "taken" not in problem


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("start", "mysql://me@localhost/traces"),
        ("start", "traces.db"),
        ("collector", "postgresql:traces"),
        ("query", "sqlite:traces.db"),
    ],
)
def test_an_unknown_kind_of_database_is_named(command: str, url: str) -> None:
    problem = problem_of(command, url)

    assert "MSGTRACE_DATABASE_URL" in problem
    assert url in problem


@pytest.mark.parametrize("address", ["127.0.0.1:no-port", "[::1"])
def test_a_malformed_postgres_url_is_named_without_its_password(address: str) -> None:
    problem = problem_of("start", f"postgresql://me:secret@{address}/traces")

    assert "postgresql://me:***@" in problem
    assert "secret" not in problem


@pytest.mark.parametrize("command", ["start", "collector", "query"])
def test_a_postgres_server_that_is_not_there_is_named_without_its_password(command: str) -> None:
    [port] = free_ports(1)

    url = f"postgresql://me:secret@127.0.0.1:{port}/traces"
    problem = problem_of(command, url, log="database_unreachable", MSGTRACE_SPILL_DIR="off")

    assert f"postgresql://me:***@127.0.0.1:{port}/traces" in problem
    assert "secret" not in problem


def test_a_spill_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [port] = free_ports(1)
    url = f"postgresql://me:secret@127.0.0.1:{port}/traces"

    folder = str(tmp_path / "file" / "spill")
    problem = problem_of("collector", url, log="database_unreachable", MSGTRACE_SPILL_DIR=folder)

    assert "MSGTRACE_SPILL_DIR" in problem
    assert folder in problem


@pytest.mark.postgres
def test_a_postgres_database_that_is_not_there_is_named(postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]

    problem = problem_of("start", postgres_url.replace(name, "no_such_database"))

    assert "no_such_database" in problem


def test_a_sqlite_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "msgtrace.db", tmp_path, Path("/proc/msgtrace.db")):
        problem = problem_of("start", f"sqlite:///{path}")

        assert str(path) in problem


def test_a_file_that_is_not_sqlite_is_named_and_left_alone(sqlite_path: Path) -> None:
    content = b"Dear diary, " * 1_000
    sqlite_path.write_bytes(content)

    problem = problem_of("start", f"sqlite:///{sqlite_path}")

    assert str(sqlite_path) in problem
    assert sqlite_path.read_bytes() == content


def test_a_sqlite_file_of_another_program_is_refused(sqlite_path: Path) -> None:
    with sqlite3.connect(sqlite_path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()

    problem = problem_of("start", f"sqlite:///{sqlite_path}")

    assert "recipes" in problem


def test_a_newer_schema_is_refused_by_every_command(storage_url: str) -> None:
    asyncio.run(migrate_database(Settings(database_url=storage_url)))
    add_migration(storage_url, 9999)

    for command in ("start", "collector", "query"):
        problem = problem_of(command, storage_url)

        assert "9999" in problem
        assert "upgrade msgtrace" in problem


def test_pending_migrations_are_refused_when_they_may_not_be_applied(sqlite_url: str) -> None:
    problem = problem_of("start", sqlite_url, MSGTRACE_AUTO_MIGRATE="false")

    assert "msgtrace-admin migrate" in problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MSGTRACE_GRPC_PORT", "otlp"),
        ("MSGTRACE_HTTP_PORT", "65536"),
        ("MSGTRACE_MAX_REQUEST_BYTES", "0"),
        ("MSGTRACE_MAX_REQUEST_BYTES", "64 MiB"),
        ("MSGTRACE_QUERY_TIMEOUT_S", "-1"),
        ("MSGTRACE_AUTO_MIGRATE", "perhaps"),
        ("MSGTRACE_LOG_LEVEL", "loud"),
        ("MSGTRACE_CONFIG_FILE", "/no/such/file.toml"),
    ],
)
def test_an_invalid_setting_is_named_with_its_value(
    variable: str, value: str, sqlite_url: str
) -> None:
    problem = problem_of("start", sqlite_url, **{variable: value})

    assert problem.startswith(f"Error: {variable}: ")
    assert value in problem


def test_a_wrong_flag_is_a_usage_error(sqlite_url: str) -> None:
    ended = run_to_end("start", "--database-url", sqlite_url, "--grpc-port", "otlp")

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("Error: Invalid value for '--grpc-port'")


def add_migration(database_url: str, number: int) -> None:
    """Make the database look as if a newer program had been there."""
    insert = f"INSERT INTO schema_migrations (number, name, checksum) VALUES ({number}, 'n', 'c')"
    if database_url.startswith("sqlite"):
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as connection:
            connection.execute(insert)
        connection.close()
    else:
        execute_each(database_url, insert)
