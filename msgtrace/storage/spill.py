"""Requests kept on local disk while the database is away: one SQLite file a collector.

Path: pipeline.spill → [storage.spill]. Not a backend: it holds requests as they came, knows
nothing of spans and is read by nobody but the drain.
A folder may serve several collectors. Each takes the first file that no other has locked, and the
requests that an ended one left in another file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from msgtrace.errors import InvalidSetting, Overloaded, StorageError, StorageUnavailable
from msgtrace.model.units import NS_PER_S
from msgtrace.storage.spill_files import lock_files
from msgtrace.storage.sqlite.connection import ConnectionThread, make_file, write_transaction

T = TypeVar("T")

logger = logging.getLogger(__name__)

_FORMAT = 1
"""PRAGMA user_version of the file."""

_BUSY_TIMEOUT_S = 5.0

_MOST_READ = 256
"""Requests in one group, however small they are."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_CREATE = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at_ns INTEGER NOT NULL,
    encoding TEXT NOT NULL,
    span_count INTEGER NOT NULL,
    payload BLOB NOT NULL,
    set_aside TEXT
)
"""

_COLUMNS = "received_at_ns, encoding, span_count, payload, set_aside"

_INSERT = f"INSERT INTO requests ({_COLUMNS}) VALUES (?, ?, ?, ?, NULL)"  # noqa: S608 - constants

_REQUEST = "id, received_at_ns, encoding, span_count, payload"
_DRAINED = "FROM requests WHERE set_aside IS NULL ORDER BY id"
_OLDEST = f"SELECT {_REQUEST} {_DRAINED}"
_OLDEST_TIME = f"SELECT received_at_ns {_DRAINED} LIMIT 1"
_MOVE = f"INSERT INTO requests ({_COLUMNS}) SELECT {_COLUMNS} FROM other.requests ORDER BY id"  # noqa: S608 - constants

_CONTENT = """
SELECT count(*) FILTER (WHERE set_aside IS NULL),
    count(*) FILTER (WHERE set_aside IS NOT NULL),
    coalesce(sum(length(payload)), 0), min(received_at_ns) FILTER (WHERE set_aside IS NULL)
FROM requests
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpilledRequest:
    """An export request as it came, inflated, or a piece of a large one.

    `id` is given by the spill, in the order of arrival; 0 before.
    """

    payload: bytes
    encoding: str
    span_count: int
    received_at_ns: int
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillContent:
    """How much a spill holds. `set_aside` requests could not be stored and wait for a person."""

    requests: int = 0
    set_aside: int = 0
    payload_bytes: int = 0
    oldest_ns: int | None = None

    def age_s(self, now_ns: int) -> float:
        """How long ago the oldest request came that waits to be drained."""
        # Never negative: the clock may have been set back since.
        return 0.0 if self.oldest_ns is None else max(now_ns - self.oldest_ns, 0) / NS_PER_S


class Spill:
    """A spill that this process has locked.

    Every method may raise StorageUnavailable: the disk is full or broken.
    """

    def __init__(self, path: Path, max_bytes: int, thread: ConnectionThread) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.content = SpillContent()
        self._thread = thread

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, folder: Path, max_bytes: int) -> AsyncIterator[Self]:
        """The first free spill of `folder`, with what collectors left that have ended.

        max_bytes: of payloads; more is refused. Raises InvalidSetting for a folder that cannot be
        used.
        """
        with contextlib.ExitStack() as locks:
            path, left_behind = lock_files(folder, locks)
            thread = ConnectionThread(lambda: open_spill_file(path), "msgtrace-spill")
            spill = cls(path, max_bytes, thread)
            try:
                await spill._begin(left_behind)
                yield spill
            finally:
                await thread.aclose()

    async def append(self, requests: Sequence[SpilledRequest]) -> None:
        """Keep the requests, all or none; returns when they are on disk.

        Raises Overloaded if they would be more than the spill may hold.
        """
        more_bytes = _bytes_of(requests)
        if self.content.payload_bytes + more_bytes > self.max_bytes:
            raise Overloaded(
                "the database is away, and the spill that replaces it holds"
                f" {self.content.payload_bytes} bytes of at most {self.max_bytes}"
            )
        await self._run(lambda connection: insert_requests(connection, requests))
        oldest_ns = self.content.oldest_ns
        self.content = dataclasses.replace(
            self.content,
            requests=self.content.requests + len(requests),
            payload_bytes=self.content.payload_bytes + more_bytes,
            oldest_ns=requests[0].received_at_ns if oldest_ns is None else oldest_ns,
        )

    async def oldest(self, max_bytes: int) -> list[SpilledRequest]:
        """The requests that came first, up to so many bytes but at least one if there is any."""
        found = await self._run(lambda connection: _read_oldest(connection, max_bytes))
        if not found:
            self.content = await self._run(read_content)
        return found

    async def remove(self, requests: Sequence[SpilledRequest]) -> None:
        """Forget requests that are stored."""
        oldest_ns = await self._run(lambda connection: _delete(connection, requests))
        self.content = dataclasses.replace(
            self.content,
            requests=self.content.requests - len(requests),
            payload_bytes=self.content.payload_bytes - _bytes_of(requests),
            oldest_ns=oldest_ns,
        )
        if not self.content.payload_bytes:
            await self._run(_give_back_disk)

    async def set_aside(self, request: SpilledRequest, reason: str) -> None:
        """Keep a request, but drain it no more. reason: nothing of its content."""
        await self._run(lambda connection: _set_aside(connection, request, reason))
        self.content = await self._run(read_content)

    async def _begin(self, left_behind: Sequence[Path]) -> None:
        try:
            for left in left_behind:
                await self._adopt(left)
            self.content = await self._run(read_content)
        except StorageUnavailable as error:
            raise InvalidSetting("MSGTRACE_SPILL_DIR", str(error)) from error

    async def _adopt(self, left: Path) -> None:
        """Take over the requests of a file.

        A crash in between leaves them in both, which the database does not double.
        """
        try:
            moved = await self._run(lambda connection: _move_from(connection, left))
        except StorageUnavailable as error:
            logger.warning("spill_not_adopted", extra={"file": left.name, "reason": str(error)})
            return
        for suffix in ("", "-wal", "-shm"):
            left.with_name(left.name + suffix).unlink(missing_ok=True)
        if moved:
            logger.info("spill_adopted", extra={"file": left.name, "requests": moved})

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._thread.run(work)
        except (StorageError, StorageUnavailable, OSError) as error:
            raise StorageUnavailable(f"the spill cannot be used: {error}") from error


def open_spill_file(path: Path) -> sqlite3.Connection:
    """A connection whose commits survive a power cut.

    A damaged file is put aside under another name, and a new one made. Raises sqlite3.Error and
    OSError.
    """
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(aside)
        logger.error("spill_damaged", extra={"kept_as": aside.name})
        return _open(path)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also while a collector has the file."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)


def read_content(connection: sqlite3.Connection) -> SpillContent:
    """How much a spill file holds."""
    requests, set_aside, payload_bytes, oldest_ns = connection.execute(_CONTENT).fetchone()
    return SpillContent(
        requests=requests, set_aside=set_aside, payload_bytes=payload_bytes, oldest_ns=oldest_ns
    )


def read_requests(connection: sqlite3.Connection) -> Iterator[SpilledRequest]:
    """All requests of a spill file, also those set aside, in the order of arrival."""
    for row in connection.execute(f"SELECT {_REQUEST} FROM requests ORDER BY id"):  # noqa: S608 - constants
        yield _request(row)


def insert_requests(connection: sqlite3.Connection, requests: Sequence[SpilledRequest]) -> None:
    """Keep requests, in one transaction."""
    rows = [
        (request.received_at_ns, request.encoding, request.span_count, request.payload)
        for request in requests
    ]
    with write_transaction(connection):
        connection.executemany(_INSERT, rows)


def _open(path: Path) -> sqlite3.Connection:
    make_file(path)
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        # Before the first table: the pages of drained requests go back to the disk.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def _read_oldest(connection: sqlite3.Connection, max_bytes: int) -> list[SpilledRequest]:
    found: list[SpilledRequest] = []
    found_bytes = 0
    with contextlib.closing(connection.execute(_OLDEST)) as rows:
        for row in rows:
            request = _request(row)
            is_full = found_bytes + len(request.payload) > max_bytes or len(found) == _MOST_READ
            if found and is_full:
                break
            found.append(request)
            found_bytes += len(request.payload)
    return found


def _delete(connection: sqlite3.Connection, requests: Sequence[SpilledRequest]) -> int | None:
    """Delete them; return when the oldest that is left came."""
    with write_transaction(connection):
        connection.executemany(
            "DELETE FROM requests WHERE id = ?", [(request.id,) for request in requests]
        )
    row = connection.execute(_OLDEST_TIME).fetchone()
    return None if row is None else int(row[0])


def _set_aside(connection: sqlite3.Connection, request: SpilledRequest, reason: str) -> None:
    with write_transaction(connection):
        connection.execute("UPDATE requests SET set_aside = ? WHERE id = ?", (reason, request.id))


def _move_from(connection: sqlite3.Connection, left: Path) -> int:
    with contextlib.closing(open_spill_file(left)):
        pass  # whatever its collector did not bring to an end is done or undone now
    connection.execute("ATTACH ? AS other", (str(left),))
    try:
        with write_transaction(connection):
            return connection.execute(_MOVE).rowcount
    finally:
        connection.execute("DETACH other")


def _give_back_disk(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _request(row: tuple[int, int, str, int, bytes]) -> SpilledRequest:
    return SpilledRequest(
        id=row[0], received_at_ns=row[1], encoding=row[2], span_count=row[3], payload=row[4]
    )


def _bytes_of(requests: Sequence[SpilledRequest]) -> int:
    return sum(len(request.payload) for request in requests)
