"""What a real database refuses for its data, and what is trouble that somebody can mend."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from msgtrace.errors import DataRefused, QueryTimeout, StorageUnavailable
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from tests.batches import TRACE_B, make_batch, span
from tests.contract.reading import find
from tests.poison import POISON, execute, poison_forbidden
from tests.postgres_server import execute_each

GOOD = make_batch(span("good"), span("good too", trace_id=TRACE_B))


async def run(database_url: str, *statements: str) -> None:
    """As somebody else with access to the database."""
    await asyncio.to_thread(execute, database_url, *statements)


async def require_unavailable(storage: Storage) -> str:
    """A write must be told to come back; returns what it was told."""
    with pytest.raises(StorageUnavailable) as refusal:
        await asyncio.wait_for(storage.write_spans([GOOD]), 20)
    assert not isinstance(refusal.value, QueryTimeout)
    return str(refusal.value)


# Both backends


async def test_a_rule_of_the_operators_refuses_the_data(storage: Storage, storage_url: str) -> None:
    bad = make_batch(span("fine"), span(POISON, attributes={"prompt": "secret"}))
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, poison_forbidden(storage_url))
        with pytest.raises(DataRefused) as refusal:
            await storage.write_spans([GOOD, bad])
        assert not any(word in str(refusal.value) for word in ("secret", "poison in the text"))
        assert (await find(storage)).total == 0
        assert await storage.write_spans([GOOD]) == 2
        with pytest.raises(DataRefused):  # also where some of it is stored already
            await storage.write_spans([GOOD, bad])
        await asyncio.to_thread(stack.close)

    assert await storage.write_spans([GOOD, bad]) == 2


async def test_a_sum_that_no_column_holds_is_refused_for_its_data(
    storage: Storage, storage_url: str
) -> None:
    """Each request is fine; it is the summary of their trace that would be too large."""
    tokens = {"gen_ai.usage.input_tokens": 5}
    await storage.write_spans([make_batch(span("first", attributes=tokens))])
    await run(storage_url, f"UPDATE traces SET input_tokens = {2**63 - 3}")

    with pytest.raises(DataRefused):
        await storage.write_spans([make_batch(span("second", attributes=tokens))])

    assert await storage.write_spans([make_batch(span("third"))]) == 1


@pytest.mark.parametrize("table", ["spans", "traces", "resources"])
async def test_a_table_that_is_gone_is_waited_for(
    storage: Storage, storage_url: str, table: str
) -> None:
    await run(storage_url, f"ALTER TABLE {table} RENAME TO away")
    assert "SQL" in await require_unavailable(storage)
    await run(storage_url, f"ALTER TABLE away RENAME TO {table}")

    assert await storage.write_spans([GOOD]) == 2


async def test_a_dead_letter_table_that_is_gone_is_waited_for(
    storage: Storage, storage_url: str
) -> None:
    await run(storage_url, "ALTER TABLE dead_letters RENAME TO away")
    for call in (
        storage.dead_letters.sum(),
        storage.dead_letters.delete(*_NO_LETTER),
    ):
        with pytest.raises(Exception, match=r"UndefinedTable|no such table"):
            await call
    await run(storage_url, "ALTER TABLE away RENAME TO dead_letters")

    assert not await storage.dead_letters.delete(*_NO_LETTER)


_NO_LETTER: Any = (0, b"no such letter")


# SQLite


@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK"])
async def test_a_trigger_refuses_the_data_however_it_ends_the_transaction(
    sqlite_url: str, action: str
) -> None:
    async with open_storage(Settings(database_url=sqlite_url)) as storage:
        await run(
            sqlite_url,
            f"""CREATE TRIGGER no_poison BEFORE INSERT ON spans WHEN NEW.name = '{POISON}'
            BEGIN SELECT RAISE({action}, 'no'); END""",
        )

        with pytest.raises(DataRefused, match="SQLITE_CONSTRAINT_TRIGGER"):
            await storage.write_spans([make_batch(span("fine"), span(POISON))])

        assert (await find(storage)).total == 0
        assert await storage.write_spans([GOOD]) == 2


# PostgreSQL


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """A user that may read and write, and no more."""
    name = urlsplit(postgres_url).path[1:] + "_writer"
    execute_each(
        postgres_url,
        f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
    )
    try:
        yield name
    finally:
        execute_each(postgres_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.fixture
async def as_role(role: str, postgres_url: str) -> AsyncIterator[Storage]:
    """An open storage of that user, which has written nothing yet."""
    parts = urlsplit(postgres_url)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"{role}:hunter2@{host}"))
    async with open_storage(Settings(database_url=url, auto_migrate=False)) as storage:
        yield storage


@pytest.fixture
async def on_postgres(postgres_url: str) -> AsyncIterator[Storage]:
    async with open_storage(Settings(database_url=postgres_url)) as storage:
        yield storage


@pytest.mark.postgres
async def test_a_right_that_was_revoked_is_waited_for(
    as_role: Storage, role: str, postgres_url: str
) -> None:
    await run(postgres_url, f"REVOKE INSERT ON spans FROM {role}")
    assert "42501" in await require_unavailable(as_role)
    await run(postgres_url, f"GRANT INSERT ON spans TO {role}")

    assert await as_role.write_spans([GOOD]) == 2


@pytest.mark.postgres
async def test_the_right_to_temporary_tables_is_waited_for(
    as_role: Storage, postgres_url: str
) -> None:
    database = urlsplit(postgres_url).path.removeprefix("/")
    await run(postgres_url, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    assert "42501" in await require_unavailable(as_role)
    await run(postgres_url, f"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC")

    assert await as_role.write_spans([GOOD]) == 2


@pytest.mark.postgres
async def test_a_user_that_may_not_log_in_is_waited_for(
    as_role: Storage, role: str, postgres_url: str
) -> None:
    await run(postgres_url, f"ALTER ROLE {role} NOLOGIN")
    assert "28000" in await require_unavailable(as_role)
    await run(postgres_url, f"ALTER ROLE {role} LOGIN")

    assert await as_role.write_spans([GOOD]) == 2


@pytest.mark.postgres
async def test_too_many_connections_are_waited_for(
    as_role: Storage, role: str, postgres_url: str
) -> None:
    await run(postgres_url, f"ALTER ROLE {role} CONNECTION LIMIT 0")
    assert "53300" in await require_unavailable(as_role)
    await run(postgres_url, f"ALTER ROLE {role} CONNECTION LIMIT -1")

    assert await as_role.write_spans([GOOD]) == 2


@pytest.mark.postgres
async def test_a_database_that_only_reads_is_waited_for(
    as_role: Storage, role: str, postgres_url: str
) -> None:
    await run(postgres_url, f"ALTER ROLE {role} SET default_transaction_read_only = on")
    assert "25006" in await require_unavailable(as_role)
    await run(
        postgres_url,
        f"ALTER ROLE {role} RESET default_transaction_read_only",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
    )

    async with asyncio.timeout(20):
        while True:  # until the pool has noticed that its connections are gone
            with contextlib.suppress(StorageUnavailable):
                assert await as_role.write_spans([GOOD]) == 2
                break


@pytest.mark.postgres
async def test_a_database_that_is_gone_is_waited_for(
    on_postgres: Storage, postgres_url: str, postgres_admin_url: str
) -> None:
    name = urlsplit(postgres_url).path[1:]
    away = f"{name}_away"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    await run(postgres_admin_url, end, f"ALTER DATABASE {name} RENAME TO {away}")
    try:
        assert "3D000" in await require_unavailable(on_postgres)
    finally:
        await run(postgres_admin_url, f"ALTER DATABASE {away} RENAME TO {name}")

    assert await on_postgres.write_spans([GOOD]) == 2


@pytest.mark.postgres
@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_write_that_somebody_ends_may_be_tried_again(
    on_postgres: Storage, postgres_url: str, end: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE traces IN ACCESS EXCLUSIVE MODE")
            write = asyncio.create_task(require_unavailable(on_postgres))
            async with asyncio.timeout(20):
                while not await connection.fetchval(  # noqa: ASYNC110 - the server tells nobody
                    f"SELECT {end}(pid) FROM pg_locks"
                    " WHERE NOT granted AND relation = 'traces'::regclass AND database ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())"
                ):
                    await asyncio.sleep(0.02)
            said = await write
    finally:
        await connection.close()

    assert ("57014" if end == "pg_cancel_backend" else "PostgreSQL") in said
    assert await on_postgres.write_spans([GOOD]) == 2


@pytest.mark.postgres
async def test_a_trigger_that_raises_refuses_the_data(
    on_postgres: Storage, postgres_url: str
) -> None:
    await run(
        postgres_url,
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no %', NEW.name; END $$""",
        f"""CREATE TRIGGER no_poison BEFORE INSERT ON spans FOR EACH ROW
        WHEN (NEW.name = '{POISON}') EXECUTE FUNCTION refuse()""",
    )

    with pytest.raises(DataRefused, match="P0001") as refusal:
        await on_postgres.write_spans([make_batch(span("fine"), span(POISON))])

    assert POISON not in str(refusal.value)
    assert await on_postgres.write_spans([GOOD]) == 2


@pytest.mark.postgres
async def test_a_span_without_a_partition_is_refused_for_its_data(
    on_postgres: Storage, postgres_url: str
) -> None:
    """One clock that is far off must not hold up everybody."""
    await run(postgres_url, "ALTER TABLE spans DETACH PARTITION spans_default")
    far_off = make_batch(span("far off", start_ns=1))

    with pytest.raises(DataRefused, match="23514"):
        await on_postgres.write_spans([far_off])
