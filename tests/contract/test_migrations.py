"""How a database comes to the schema that this program needs, and why it may be refused."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from msgtrace.errors import ConfigError, DatabaseUnusable, InvalidSetting, SchemaMismatch
from msgtrace.model.maintenance import Level
from msgtrace.model.trace import Operation
from msgtrace.model.units import NS_PER_DAY
from msgtrace.settings.table import Settings
from msgtrace.storage import migrate
from msgtrace.storage.factory import migrate_database, open_storage
from msgtrace.storage.migrate import load_migrations
from msgtrace.storage.operations import MAX_OF_SERVICE
from tests.batches import NOON_NS, TRACE_A, make_batch, span
from tests.conftest import BACKENDS
from tests.contract.purging import purge
from tests.contract.reading import TENANT, find
from tests.postgres_server import execute_each, with_database


@pytest.fixture(params=BACKENDS)
def empty_settings(request: pytest.FixtureRequest) -> Settings:
    """A database of each backend that nobody has migrated."""
    fixture = "sqlite_url" if request.param == "sqlite" else "empty_postgres_url"
    return Settings(database_url=request.getfixturevalue(fixture))


def is_sqlite(settings: Settings) -> bool:
    return settings.database_url.startswith("sqlite")


def names_of(settings: Settings) -> list[str]:
    """All migrations of the backend, in order."""
    backend = "sqlite" if is_sqlite(settings) else "postgres"
    return [migration.name for migration in load_migrations(backend)]


async def execute(settings: Settings, sql: str) -> None:
    """As somebody else with access to the database would."""
    if is_sqlite(settings):
        connection = sqlite3.connect(sqlite_path(settings))
        with connection:
            connection.execute(sql)
        connection.close()
    else:
        await asyncio.to_thread(execute_each, settings.database_url, sql)


def sqlite_path(settings: Settings) -> Path:
    return Path(settings.database_url.removeprefix("sqlite:///"))


async def open_and_close(settings: Settings) -> None:
    async with open_storage(settings):
        pass


# Starting


async def test_a_fresh_database_gets_every_migration_once(empty_settings: Settings) -> None:
    assert await migrate_database(empty_settings) == names_of(empty_settings)
    assert await migrate_database(empty_settings) == []


async def test_a_start_migrates_and_keeps_what_is_stored(empty_settings: Settings) -> None:
    async with open_storage(empty_settings) as storage:
        await storage.write_spans([make_batch(span())])
    async with open_storage(empty_settings) as storage:
        assert (await find(storage)).total == 1
        assert (await storage.get_status()).schema_version == len(names_of(empty_settings))


@pytest.mark.parametrize("attempt", range(4))
async def test_of_many_starts_at_the_same_time_one_migrates(
    empty_settings: Settings, attempt: int
) -> None:
    starts = [migrate_database(empty_settings) for _ in range(4)]

    applied = await asyncio.gather(*starts)

    assert sorted(applied) == [[], [], [], names_of(empty_settings)]


async def test_many_storages_open_on_a_fresh_database(empty_settings: Settings) -> None:
    await asyncio.gather(*(open_and_close(empty_settings) for _ in range(4)))

    async with open_storage(empty_settings) as storage:
        assert (await find(storage)).total == 0


async def test_a_migration_that_fails_leaves_nothing(empty_settings: Settings) -> None:
    # The view's name is taken, so the last statement of the first migration cannot succeed.
    await execute(empty_settings, "CREATE TABLE span_view (x integer)")
    with pytest.raises(DatabaseUnusable, match="span_view"):
        await migrate_database(empty_settings)

    await execute(empty_settings, "DROP TABLE span_view")
    assert await migrate_database(empty_settings) == names_of(empty_settings)


# Data of earlier versions

OLDER_SPAN = """
INSERT INTO spans (tenant_id, trace_id, span_id, start_time_ns, end_time_ns, resource_id, scope_id,
    kind, status_code, service_name, name)
VALUES (0, {trace_id}, {span_id}, {start_ns}, {start_ns}, 1, 1, {kind}, 0, '{service}', '{name}')
"""

OLDER_TRACE = """
INSERT INTO traces (tenant_id, trace_id, start_time_ns, end_time_ns, span_count, error_count,
    input_tokens, output_tokens, cost, root_has_parent, root_start_time_ns, root_span_id,
    root_span_name, root_service_name, services, models)
VALUES (0, {trace_id}, {start_ns}, {start_ns}, {count}, 0, 0, 0, 0, {false}, {start_ns}, {span_id},
    'root', 'shop', '{none}', '{none}')
"""

SPANS_OF_BEFORE = (
    ("shop", "GET /", 2, NOON_NS),
    ("shop", "GET /", 2, NOON_NS + NS_PER_DAY),
    ("shop", "GET /", 3, NOON_NS),
    ("shop", "n" * 300, 1, NOON_NS),
    ("bank", "", 0, 0),
)


async def store_older(settings: Settings) -> None:
    """A trace as the first version has stored it, in whatever schema there is."""

    def as_bytes(value: bytes) -> str:
        return f"x'{value.hex()}'" if is_sqlite(settings) else f"'\\x{value.hex()}'"

    for place, (service, name, kind, start_ns) in enumerate(SPANS_OF_BEFORE):
        values = {
            "trace_id": as_bytes(TRACE_A),
            "span_id": as_bytes(place.to_bytes(8, "big")),
            "start_ns": start_ns,
            "kind": kind,
            "service": service,
            "name": name,
            "false": 0 if is_sqlite(settings) else "false",
            "none": "[]" if is_sqlite(settings) else "{}",
            "count": len(SPANS_OF_BEFORE),
        }
        await execute(settings, OLDER_SPAN.format(**values))
        if place == 0:
            await execute(settings, OLDER_TRACE.format(**values))


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
async def test_the_data_of_every_earlier_version_is_there_afterwards(
    empty_settings: Settings, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "load_migrations", lambda each: load_migrations(each)[:version])
        assert await migrate_database(empty_settings) == names_of(empty_settings)[:version]
    await store_older(empty_settings)

    assert await migrate_database(empty_settings) == names_of(empty_settings)[version:]

    async with open_storage(empty_settings) as storage:
        [summary] = (await find(storage)).traces
        assert summary.span_count == len(SPANS_OF_BEFORE)
        assert await storage.list_services(TENANT) == ["bank", "shop"]
        assert await storage.list_operations(TENANT, "bank") == [Operation(name="", span_kind=0)]
        assert await storage.list_operations(TENANT, "shop") == [
            Operation(name="GET /", span_kind=2),
            Operation(name="GET /", span_kind=3),
            Operation(name="n" * 255, span_kind=1),
        ]
        # Each with the day of its newest span.
        await purge(storage, NOON_NS + NS_PER_DAY // 2)
        assert await storage.list_operations(TENANT, "shop") == [
            Operation(name="GET /", span_kind=2)
        ]
        found = {each.check: each.level for each in await storage.maintenance.examine()}
        assert (found["indexes"], found["operations"]) == (Level.OK, Level.OK)


async def test_the_table_of_operations_is_filled_within_its_bounds(
    empty_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "load_migrations", lambda each: load_migrations(each)[:5])
        await migrate_database(empty_settings)
    many = MAX_OF_SERVICE + 500
    numbered = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {})"
    id_of = "CAST(printf('%08d', n) AS BLOB)" if is_sqlite(empty_settings) else "int8send(n)"
    for service, count, day in (("shop", many, 1), ("bank", 1, 2)):
        await execute(
            empty_settings,
            "INSERT INTO spans (tenant_id, trace_id, span_id, start_time_ns, end_time_ns,"
            " resource_id, scope_id, kind, status_code, service_name, name) "
            f"{numbered.format(count)} SELECT 0, {id_of}, {id_of}, {day * NS_PER_DAY}, 0,"
            f" 1, 1, 1, 0, '{service}', 'name ' || n FROM n",
        )

    await migrate_database(empty_settings)

    async with open_storage(empty_settings) as storage:
        assert len(await storage.list_operations(TENANT, "shop")) == MAX_OF_SERVICE
        assert len(await storage.list_operations(TENANT, "bank")) == 1


# Schemas that do not fit


async def test_without_auto_migrate_an_empty_database_is_refused_with_the_cure(
    empty_settings: Settings,
) -> None:
    settings = dataclasses.replace(empty_settings, auto_migrate=False)

    with pytest.raises(SchemaMismatch, match="msgtrace-admin migrate"):
        await open_and_close(settings)

    await migrate_database(settings)
    await open_and_close(settings)


async def test_a_database_newer_than_the_program_is_refused(empty_settings: Settings) -> None:
    await migrate_database(empty_settings)
    await execute(
        empty_settings,
        "INSERT INTO schema_migrations (number, name, checksum) VALUES (9999, '9999_new', 'x')",
    )

    for auto_migrate in (True, False):
        settings = dataclasses.replace(empty_settings, auto_migrate=auto_migrate)
        with pytest.raises(SchemaMismatch, match=r"9999.*upgrade msgtrace"):
            await open_and_close(settings)


async def test_a_migration_applied_with_other_content_is_refused(empty_settings: Settings) -> None:
    await migrate_database(empty_settings)
    await execute(empty_settings, "UPDATE schema_migrations SET checksum = 'other'")

    for auto_migrate in (True, False):
        settings = dataclasses.replace(empty_settings, auto_migrate=auto_migrate)
        with pytest.raises(SchemaMismatch, match=names_of(empty_settings)[0]):
            await open_and_close(settings)


async def test_the_migrations_table_of_another_program_is_refused(empty_settings: Settings) -> None:
    # Rails calls its own the same.
    await execute(empty_settings, "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)")

    with pytest.raises(DatabaseUnusable, match="another program"):
        await migrate_database(empty_settings)


# SQLite files


async def test_a_new_file_and_its_folders_are_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "traces.db"
    async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
        await storage.write_spans([make_batch(span())])

        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}

    assert modes == dict.fromkeys(modes, 0o600)
    assert "traces.db" in modes


async def test_without_auto_migrate_no_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"

    with pytest.raises(SchemaMismatch):
        await open_and_close(Settings(database_url=f"sqlite:///{path}", auto_migrate=False))

    assert not path.exists()


async def test_the_file_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    with pytest.raises(DatabaseUnusable, match="bookmarks"):
        await open_and_close(Settings(database_url=f"sqlite:///{path}"))

    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk\n" * 100)

    with pytest.raises(DatabaseUnusable, match=r"notes\.txt"):
        await open_and_close(Settings(database_url=f"sqlite:///{path}"))

    assert path.read_text() == "remember the milk\n" * 100


@pytest.mark.parametrize("place", ["file/traces.db", "file/below/traces.db", "folder"])
async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(DatabaseUnusable, match=f"{place}: "):
        await open_and_close(Settings(database_url=f"sqlite:///{tmp_path / place}"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
async def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="names no file"):
        await open_and_close(Settings(database_url=url))


# PostgreSQL servers


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, kept from others."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.mark.parametrize("start", [open_and_close, migrate_database])
async def test_an_unreachable_server_is_given_up_after_the_timeout(
    closed_port: int, start: Any
) -> None:
    url = f"postgresql://someone:hunter2@127.0.0.1:{closed_port}/traces"
    began = time.monotonic()

    with pytest.raises(DatabaseUnusable) as refusal:
        await start(Settings(database_url=url, connect_timeout_s=0.7))

    assert 0.6 < time.monotonic() - began < 10
    assert f"someone:***@127.0.0.1:{closed_port}/traces" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


async def test_a_silent_server_is_given_up_after_the_timeout() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()
    try:
        with pytest.raises(DatabaseUnusable, match=r"within 0\.5 s"):
            await open_and_close(
                Settings(database_url=f"postgresql://a@127.0.0.1:{port}/b", connect_timeout_s=0.5)
            )
    finally:
        server.close()

    assert time.monotonic() - began < 10


@pytest.mark.postgres
async def test_a_database_that_takes_connections_late_is_waited_for(
    postgres_url: str, postgres_admin_url: str
) -> None:
    name = urlsplit(postgres_url).path[1:]

    async def allow(is_allowed: bool) -> None:
        sql = f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_allowed}"
        await asyncio.to_thread(execute_each, postgres_admin_url, sql)

    await allow(False)
    start = asyncio.create_task(open_and_close(Settings(database_url=postgres_url)))
    await asyncio.sleep(0.3)
    assert not start.done()
    await allow(True)

    await asyncio.wait_for(start, 5)


@pytest.mark.postgres
async def test_an_absent_database_is_refused_at_once(postgres_admin_url: str) -> None:
    url = with_database(postgres_admin_url, "no_such_database")
    began = time.monotonic()

    with pytest.raises(DatabaseUnusable, match="no_such_database"):
        await open_and_close(Settings(database_url=url))

    assert time.monotonic() - began < 10


@pytest.mark.postgres
async def test_a_role_that_does_not_exist_is_refused_at_once(postgres_url: str) -> None:
    began = time.monotonic()

    with pytest.raises(DatabaseUnusable) as refusal:
        await open_and_close(Settings(database_url=as_user(postgres_url, "nobody_here", "hunter2")))

    assert time.monotonic() - began < 10
    assert "nobody_here" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


async def test_a_wrong_password_is_refused_at_once() -> None:
    """A server that asks for a password and takes none: the tests' own may take any."""
    fields = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
    refusal = b"E" + (len(fields) + 4).to_bytes(4) + fields

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            hello = await reader.readexactly(8)
            if hello[4:] == (80_877_103).to_bytes(4):  # asks for TLS
                writer.write(b"N")
                hello = await reader.readexactly(8)
            await reader.readexactly(int.from_bytes(hello[:4]) - 8)
            writer.write(b"R" + (8).to_bytes(4) + (3).to_bytes(4))  # a password, please
            await reader.readexactly(5)
            writer.write(refusal)
            await writer.drain()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"postgresql://someone:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}/traces"
    began = time.monotonic()
    try:
        with pytest.raises(DatabaseUnusable, match="authentication failed") as caught:
            await open_and_close(Settings(database_url=url))
    finally:
        server.close()

    assert time.monotonic() - began < 10
    assert "hunter2" not in str(caught.value)


@pytest.mark.postgres
async def test_a_role_that_may_not_create_tables_is_refused_with_the_reason(
    empty_postgres_url: str,
) -> None:
    role = urlsplit(empty_postgres_url).path[1:] + "_reader"
    await asyncio.to_thread(
        execute_each,
        empty_postgres_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    try:
        with pytest.raises(DatabaseUnusable, match="permission denied") as refusal:
            await open_and_close(
                Settings(database_url=as_user(empty_postgres_url, role, "hunter2"))
            )
    finally:
        await asyncio.to_thread(execute_each, empty_postgres_url, f"DROP ROLE {role}")

    assert "hunter2" not in str(refusal.value)


def as_user(url: str, user: str, password: str) -> str:
    """The URL for another user of the same database."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))


# URLs


@pytest.mark.parametrize(
    "url", ["mysql://a:hunter2@h/d", "", "traces.db", "/var/traces.db", "postgres+asyncpg://h/d"]
)
async def test_a_url_of_no_known_kind_is_an_invalid_setting(url: str) -> None:
    for start in (open_and_close, migrate_database):
        with pytest.raises(InvalidSetting, match="MSGTRACE_DATABASE_URL") as refusal:
            await start(Settings(database_url=url))
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["postgresql://a:hunter2@h:port/d", "postgresql://a:hun/ter2@h/d"])
async def test_a_malformed_url_is_refused_at_once_without_its_password(url: str) -> None:
    began = time.monotonic()

    with pytest.raises(ConfigError) as refusal:
        await open_and_close(Settings(database_url=url))

    assert time.monotonic() - began < 10
    assert "ter2" not in str(refusal.value)
