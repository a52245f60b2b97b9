"""SQLite connections, each alone in a plain thread of its own.

Not an executor: those are closed before `atexit` handlers run, and a last flush must still be
possible then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from msgtrace.errors import (
    DatabaseUnusable,
    DataRefused,
    QueryTimeout,
    StorageError,
    StorageUnavailable,
)
from msgtrace.model.units import KIB, MIB
from msgtrace.storage.attribute_filters import lets_in

T = TypeVar("T")

LETS_IN = "msgtrace_lets_in"
"""SQL function of readers: `storage.attribute_filters.lets_in`."""

BUSY_TIMEOUT_S = 5.0
"""How long a write waits for another process that writes."""

PAGE_BYTES = 8192
"""Of a new file: fewer bytes are left over beside rows than with SQLite's 4,096 (decision 0021)."""

WRITE_CACHE_BYTES = 64 * MIB
"""More than the pages that a flush changes. With less they are written before the commit, and read
again."""

CHECKPOINT_BYTES = 16 * MIB
"""Size of the WAL from which a commit copies it into the file: after a few large flushes, soon
enough for none of them to wait for long."""

_TABLES_AND_COLUMNS = """
SELECT t.name, (SELECT group_concat(c.name) FROM pragma_table_info(t.name) c)
FROM sqlite_schema t WHERE t.type = 'table'
"""

_RETRYABLE = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    )
)
"""Result codes of passing trouble."""

_ABOUT_DATA = frozenset((sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG))
"""Result codes that say something about the rows.

All others, a missing table or a damaged file among them, are for the operator to mend, and the data
is not to be given up for them.
"""

_BAD_VALUE = (TypeError, ValueError, OverflowError)
"""What the driver raises, bare, for a value that no column can hold."""

_NO_CODE = -1
"""Stands for the result code of an error that the driver raised by itself, without SQLite."""


def database_path(url: str) -> Path:
    """The file of sqlite:///relative or sqlite:////absolute.

    Raises DatabaseUnusable if the URL names none.
    """
    path = url.removeprefix("sqlite://").removeprefix("/")
    if not path or path == ":memory:":
        raise DatabaseUnusable(f"{url!r} names no file; use sqlite:///path/to/file.db")
    return Path(path).expanduser()


def open_connection(path: Path) -> sqlite3.Connection:
    """A connection whose commits survive a power cut. Raises DatabaseUnusable.

    A new file is readable by its owner only: traces hold prompts and personal data.
    """
    try:
        _make_database(path)
        make_file(path)
    except OSError as error:
        raise DatabaseUnusable(f"cannot write {path}: {error.strerror}") from error
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _refuse_foreign(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DatabaseUnusable(f"{path} cannot be used as a SQLite database: {error}") from error
    except DatabaseUnusable:
        connection.close()
        raise
    return connection


def _make_database(path: Path) -> None:
    """Make a file of PAGE_BYTES that can give space back, if there is none. Raises OSError.

    That is said in its first page, whose writing locks it; so it is made under another name, and
    whoever opens it finds it ready. Where there are no hard links, `make_file` makes a plain one.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # the owner's alone
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
        with contextlib.suppress(OSError):  # somebody was faster, or no hard links
            os.link(name, path)
    finally:
        os.unlink(name)


def make_file(path: Path) -> None:
    """Make the file if it is absent; raises OSError if it cannot be written.

    A file that exists must not be opened: closing it would drop all locks that this process holds
    on it (POSIX), and the next process to leave the database, seeing none, would delete the WAL in
    which our next commits go. Source: sqlite.org/howtocorrupt.html, section 2.2.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection for large flushes; see `open_connection`."""
    connection = open_connection(path)
    connection.execute(f"PRAGMA cache_size = -{WRITE_CACHE_BYTES // KIB}")
    [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // page_bytes}")
    return connection


@contextlib.contextmanager
def connection_for_once(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one large flush, closed afterwards. Raises as the driver does.

    A connection keeps the last texts that were bound to a statement, the row that was made of them
    and the pages of its cache: of one attribute of 64 MiB three times as much.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        cached_statements=0,
    )
    with contextlib.closing(connection):
        connection.execute("PRAGMA synchronous = FULL")
        yield connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    connection = open_connection(path)
    connection.execute("PRAGMA query_only = ON")
    connection.create_function(LETS_IN, 3, lets_in, deterministic=True)
    return connection


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DatabaseUnusable for a file with another program's tables, before anything changes."""
    columns = dict(connection.execute(_TABLES_AND_COLUMNS).fetchall())
    if columns and "checksum" not in columns.get("schema_migrations", ""):
        names = ", ".join(sorted(columns)[:3])
        raise DatabaseUnusable(
            f"{path} holds tables of another program ({names}); use another file"
        )


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's exceptions into ours; the original stays in `__cause__`.

    For writes there is `translated_write_errors`.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = _result_code(error)
        if code == sqlite3.SQLITE_INTERRUPT:
            raise QueryTimeout(
                "the read took longer than its limit; narrow it by start and end"
            ) from error
        if code in _RETRYABLE:
            raise StorageUnavailable(f"the SQLite database is not available: {error}") from error
        raise StorageError(f"SQLite refused: {error}") from error
    except _BAD_VALUE as error:
        raise StorageError(f"SQLite cannot take a value ({type(error).__name__})") from error


@contextlib.contextmanager
def translated_write_errors() -> Iterator[None]:
    """Turn the exceptions of a write into DataRefused or StorageUnavailable.

    The original stays in `__cause__`. What is neither an error of the database nor of a value
    passes: it is a fault of ours. SQLite's text is left out of DataRefused: a trigger may raise one
    with a value in it.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = _result_code(error)
        if code == _NO_CODE:  # a type that the driver does not bind
            raise DataRefused(f"SQLite cannot take a value ({type(error).__name__})") from error
        if code in _ABOUT_DATA:
            raise DataRefused(f"SQLite refuses the data ({error.sqlite_errorname})") from error
        raise StorageUnavailable(f"the SQLite database takes no writes now: {error}") from error
    except MemoryError as error:
        raise StorageUnavailable("no memory is left for the SQLite database") from error
    except _BAD_VALUE as error:
        raise DataRefused(f"SQLite cannot take a value ({type(error).__name__})") from error


def _result_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    code: int = getattr(error, "sqlite_errorcode", _NO_CODE)
    return code if code == _NO_CODE else code & 0xFF


@contextlib.contextmanager
def write_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block, or leave nothing of it and no open transaction.

    A full disk may fail the COMMIT itself, and SQLite may have rolled back by itself.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class ConnectionThread:
    """Runs work on one connection, one piece at a time, in the order of the calls."""

    def __init__(self, open_: Callable[[], sqlite3.Connection], name: str) -> None:
        self._open = open_
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(
        self, work: Callable[[sqlite3.Connection], T], timeout_s: float | None = None
    ) -> T:
        """Do `work` on the connection; raises what it raises, translated.

        Work that runs longer than `timeout_s` is interrupted: QueryTimeout. A cancelled caller does
        not stop the work. StorageUnavailable after `aclose`.
        """
        if self._is_closing:
            raise StorageUnavailable("the SQLite database is closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        deadline = None if timeout_s is None else loop.call_later(timeout_s, self._interrupt)

        self._work.put(self._job(work, done))
        try:
            return await done
        except asyncio.CancelledError:
            if deadline is not None:  # a read that nobody waits for must not hold up the next one
                self._interrupt()
            raise
        finally:
            if deadline is not None:
                deadline.cancel()

    async def aclose(self) -> None:
        """Finish the work that was given, close the connection, end the thread."""
        self._is_closing = True
        self._work.put(None)
        while self._thread.is_alive():  # noqa: ASYNC110 - no event comes after a thread's end
            await asyncio.sleep(0.005)

    def _job(
        self, work: Callable[[sqlite3.Connection], T], done: asyncio.Future[T]
    ) -> Callable[[], None]:
        """What the thread does: the work, and the news of it to the loop of `done`."""

        def tell(set_outcome: Callable[[Any], None], outcome: Any) -> None:
            if not done.done():
                set_outcome(outcome)

        def job() -> None:
            try:
                with translated_errors():
                    result = work(self._connected())
            except BaseException as error:  # noqa: BLE001 - raised again where `run` is awaited
                outcome: tuple[Callable[[Any], None], Any] = (done.set_exception, error)
            else:
                outcome = (done.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop has closed; nobody waits
                done.get_loop().call_soon_threadsafe(tell, *outcome)

        return job

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            job()
            del job  # or what it wrote would stay in memory until the next one comes
        if self._connection is not None:
            self._connection.close()
