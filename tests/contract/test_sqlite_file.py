"""What SQLite's file needs from a process that shares it with others."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from msgtrace.errors import StorageUnavailable
from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.sqlite.connection import (
    CHECKPOINT_BYTES,
    PAGE_BYTES,
    ConnectionThread,
    open_connection,
    open_writer,
    write_transaction,
)
from msgtrace.storage.sqlite.purge import STEP_PAGES, give_back_step
from tests.batches import TRACE_A, make_batch, span

_LOOK = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM spans')"


def look_from_another_process(path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"{_LOOK}; c.close()", str(path)], check=True)


async def test_a_reader_that_leaves_does_not_take_the_wal_along(tmp_path: Path) -> None:
    path = tmp_path / "msgtrace.db"
    async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
        await storage.check()
        await storage.get_trace(DEFAULT_TENANT, TRACE_A)  # each opened a connection of its own

        look_from_another_process(path)
        assert await storage.write_spans([make_batch(span("root"))]) == 1

        # A copy made by somebody else sees only what is really in the files.
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT count(*) FROM spans").fetchone() == (1,)
        other.close()


def test_a_transaction_that_sqlite_has_ended_leaves_the_connection_usable(tmp_path: Path) -> None:
    """SQLite rolls back by itself after some errors; a ROLLBACK would then fail as well."""
    connection = open_connection(tmp_path / "msgtrace.db")
    connection.execute("CREATE TABLE t (x PRIMARY KEY)")

    def write_twice(or_what: str) -> None:
        with write_transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute(f"INSERT OR {or_what} INTO t VALUES (1)")

    for or_what in ("ROLLBACK", "ABORT"):
        with pytest.raises(sqlite3.IntegrityError):
            write_twice(or_what)
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    connection.close()


async def test_a_new_file_gives_space_back_once_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "msgtrace.db"
    async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
        spans = [span(f"{n}", start_ns=n, attributes={"filler": "x" * 500}) for n in range(5_000)]
        await storage.write_spans([make_batch(*spans)])
        await storage.delete_trace(DEFAULT_TENANT, TRACE_A)
        before = (await storage.get_status()).database_bytes

        connection = open_connection(path)
        assert give_back_step(connection, 0.0) >= STEP_PAGES  # in one transaction
        connection.close()
        async with storage.maintenance.purging() as purger:
            assert purger is not None
            given_back_bytes = await purger.give_back_space()
        after = (await storage.get_status()).database_bytes

        assert 0 < given_back_bytes < before - after
        assert after < before / 2
        assert await storage.write_spans([make_batch(span("root"))]) == 1
    assert sorted(os.listdir(tmp_path)) == ["msgtrace.db", "msgtrace.db-maintenance.lock"]


async def test_a_disk_that_fills_up_is_retryable_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "msgtrace.db"
    thread = ConnectionThread(lambda: open_connection(path), "test")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 4")
        with write_transaction(connection):
            connection.execute("CREATE TABLE t (x)")
            connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")

    def empty(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 10000")
        with write_transaction(connection):
            connection.execute("CREATE TABLE t (x)")

    try:
        with pytest.raises(StorageUnavailable, match="full"):
            await thread.run(fill)
        await thread.run(empty)
    finally:
        await thread.aclose()


async def test_new_files_have_large_pages_and_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with sqlite3.connect(old) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()

    for path, page_bytes in ((tmp_path / "new.db", PAGE_BYTES), (old, 4096)):
        async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
            assert await storage.write_spans([make_batch(span("root"))]) == 1
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA page_size").fetchone() == (page_bytes,)
        connection.close()


def test_the_wal_is_copied_into_the_file_before_it_grows_large(tmp_path: Path) -> None:
    path = tmp_path / "msgtrace.db"
    connection = open_writer(path)
    connection.execute("CREATE TABLE t (x BLOB)")
    sizes = []
    for _ in range(12):
        with write_transaction(connection):
            connection.execute("INSERT INTO t VALUES (zeroblob(?))", (CHECKPOINT_BYTES // 4,))
        sizes.append(Path(f"{path}-wal").stat().st_size)
    connection.close()

    assert max(sizes) < 2 * CHECKPOINT_BYTES
    assert sizes[-1] == sizes[5]  # its space is used again
    assert path.stat().st_size > 2 * CHECKPOINT_BYTES
