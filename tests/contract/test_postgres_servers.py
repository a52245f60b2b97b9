"""Which PostgreSQL servers will do, and what is asked of their user."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from asyncpg.types import ServerVersion

from msgtrace.errors import DatabaseUnusable, InvalidSetting, SchemaMismatch
from msgtrace.model.dead_letter import DeadLetterTotals
from msgtrace.model.search import TraceFilter
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import migrate_database, open_storage
from msgtrace.storage.postgres.connection import OLDEST_VERSION, require_supported
from msgtrace.storage.protocol import Storage, StorageStatus
from tests.batches import NOON_NS, TRACE_A, make_batch, span
from tests.contract.reading import TENANT, find, read_trace
from tests.end_to_end.processes import can_connect, free_ports, wait_until
from tests.faults.private_postgres import PrivatePostgres, private_postgres

pytestmark = pytest.mark.postgres

INSTALLED = sorted(
    (path.parent.parent.name, path.parent)
    for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")
)
"""Major versions that Debian's packages have put there."""

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


async def use(storage: Storage) -> None:
    """All that a collector, a query service and an operator ask of a database."""
    batch = make_batch(span("old"), span("root", start_ns=NOON_NS + 1))
    assert await storage.write_spans([batch]) == 2
    assert await storage.write_spans([batch, make_batch(span("new"))]) == 1
    assert {each.name for each in (await read_trace(storage)).spans} == {"old", "root", "new"}
    assert (await find(storage, service_name="shop")).total == 1
    assert (await storage.get_stats(TENANT, TraceFilter())).total_spans == 3
    assert await storage.list_services(TENANT) == ["shop"]
    assert (await storage.get_status()).span_count == 3
    assert await storage.dead_letters.sum() == DeadLetterTotals(letter_count=0, kept_bytes=0)
    await storage.check()
    assert await storage.delete_trace(TENANT, TRACE_A)


def use_database(settings: Settings) -> StorageStatus:
    """Open it and use it; what it was before."""

    async def run() -> StorageStatus:
        async with open_storage(settings) as storage:
            status = await storage.get_status()
            await use(storage)
            return status

    return asyncio.run(run())


@pytest.fixture(scope="module")
def own_server() -> Iterator[PrivatePostgres]:
    """A server whose superuser we are, on a port."""
    with private_postgres() as server:
        yield server


@contextlib.contextmanager
def database_of_nobody(server: PrivatePostgres, name: str) -> Iterator[str]:
    """A database whose owner has no right beyond it, as managed services give it."""
    server.execute(
        f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION",
        f"CREATE DATABASE {name} OWNER {name}",
    )
    yield server.url(name).replace("postgres@", f"{name}@")


@pytest.mark.parametrize(
    ("version", "programs"),
    INSTALLED
    or [
        pytest.param("none", Path(), marks=pytest.mark.skip("no PostgreSQL in /usr/lib/postgresql"))
    ],
)
def test_every_installed_version_will_do(version: str, programs: Path) -> None:
    with (
        private_postgres(programs=programs) as server,
        database_of_nobody(server, "plain") as url,
    ):
        status = use_database(Settings(database_url=url))

    assert status.server_version.startswith(f"PostgreSQL {version}.")


@pytest.mark.parametrize("major", [9, 13])
def test_an_older_server_is_refused_in_a_clear_sentence(major: int) -> None:
    with pytest.raises(DatabaseUnusable) as refusal:
        require_supported(ServerVersion(major, 4, 0, "final", 0), "postgresql://h/d")

    assert str(refusal.value) == (
        f"postgresql://h/d is PostgreSQL {major}; msgtrace works with 14 and newer:"
        " upgrade the server, or use another"
    )


def test_the_oldest_version_is_not_refused() -> None:
    require_supported(ServerVersion(OLDEST_VERSION, 0, 0, "final", 0), "postgresql://h/d")


def test_the_owner_of_a_database_needs_no_other_right(own_server: PrivatePostgres) -> None:
    with database_of_nobody(own_server, "managed") as url:
        assert use_database(Settings(database_url=url)).schema_version > 0


@pytest.fixture
async def in_schemas(empty_postgres_url: str) -> AsyncIterator[list[Storage]]:
    """Two storages in one database, each with a schema of its own."""
    settings = Settings(database_url=empty_postgres_url)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_storage(dataclasses.replace(settings, database_schema=name))
            )
            for name in ('Team "A"', "team_b")
        ]


async def test_schemas_of_one_database_know_nothing_of_each_other(
    in_schemas: list[Storage], empty_postgres_url: str
) -> None:
    first, second = in_schemas

    await use(first)
    await first.write_spans([make_batch(span("mine"))])
    await use(second)

    assert (await find(first)).total == 1
    assert (await find(second)).total == 0
    connection = await asyncpg.connect(empty_postgres_url)
    try:
        tables = await connection.fetch(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'spans%'"
        )
    finally:
        await connection.close()
    assert {row[0] for row in tables} == {'Team "A"', "team_b"}


async def test_a_schema_is_made_by_a_migration_only(empty_postgres_url: str) -> None:
    settings = Settings(database_url=empty_postgres_url, database_schema="later")

    with pytest.raises(SchemaMismatch, match="run `msgtrace-admin migrate`"):
        async with open_storage(dataclasses.replace(settings, auto_migrate=False)):
            pass
    assert await migrate_database(settings)
    async with open_storage(dataclasses.replace(settings, auto_migrate=False)) as storage:
        await use(storage)


def test_a_user_who_may_make_no_schema_uses_the_one_that_was_made(
    own_server: PrivatePostgres,
) -> None:
    own_server.execute("CREATE ROLE guest LOGIN", "CREATE DATABASE shared")
    url = own_server.url("shared").replace("postgres@", "guest@")
    settings = Settings(database_url=url, database_schema="traces")

    with pytest.raises(DatabaseUnusable, match="lacks a right: permission denied"):
        asyncio.run(migrate_database(settings))
    own_server.execute("CREATE SCHEMA traces AUTHORIZATION guest", database="shared")
    use_database(settings)


async def test_a_schema_for_sqlite_is_refused(sqlite_url: str) -> None:
    with pytest.raises(InvalidSetting, match="MSGTRACE_DATABASE_SCHEMA: is for PostgreSQL"):
        async with open_storage(Settings(database_url=sqlite_url, database_schema="traces")):
            pass


@pytest.mark.parametrize("name", ["pg_traces", "x" * 64, "ü" * 32, "a\0b"])
def test_a_schema_that_postgresql_would_refuse_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidSetting, match="MSGTRACE_DATABASE_SCHEMA: must be at most 63 bytes"):
        Settings(database_url="postgresql://h/d", database_schema=name)


async def test_connections_stay_within_what_is_set(postgres_url: str) -> None:
    settings = Settings(database_url=postgres_url, database_writers=1, database_readers=3)

    async with open_storage(settings) as storage:
        assert storage.writer_count == 1
        batches = [make_batch(span(f"{number}")) for number in range(8)]
        for batch in batches:
            await storage.write_spans([batch])
        counts = storage.count_connections()

    assert counts["write"][0] <= 1
    assert counts["read"][0] <= 3


@contextlib.contextmanager
def pooler(folder: Path, server: PrivatePostgres, mode: str, extra: str) -> Iterator[str]:
    """URL of a database behind a PgBouncer."""
    assert PGBOUNCER is not None
    (port,) = free_ports(1)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"""[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{extra}
"""
    )
    folder.chmod(0o755)
    command = [PGBOUNCER, "--quiet", str(configuration)]
    if server.user is not None:  # like PostgreSQL it refuses to run as root
        for parent in (configuration, *configuration.parents):
            if parent.is_relative_to("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o055)
        command[1:1] = ["--user", server.user]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: can_connect(port), "PgBouncer")
            yield f"postgresql://postgres@127.0.0.1:{port}/pooled"
        finally:
            process.terminate()
            process.wait(10)


IGNORED = "ignore_startup_parameters = application_name,synchronous_commit,search_path"


@pytest.mark.skipif(
    PGBOUNCER is None,
    reason="pgbouncer is not installed (apt install pgbouncer)",
)
@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("extra", ["", f"{IGNORED},msgtrace.session,statement_timeout"])
def test_a_pooler_is_refused_in_a_clear_sentence(
    own_server: PrivatePostgres, tmp_path: Path, mode: str, extra: str
) -> None:
    with contextlib.suppress(asyncpg.DuplicateDatabaseError):
        own_server.execute("CREATE DATABASE pooled")
    with pooler(tmp_path, own_server, mode, extra) as url:
        settings = Settings(database_url=url, connect_timeout_s=10)

        with pytest.raises(DatabaseUnusable) as refusal:
            use_database(settings)

    assert str(refusal.value).startswith(f"{url} leads to a connection pooler such as PgBouncer")
    assert "name PostgreSQL itself" in str(refusal.value)
