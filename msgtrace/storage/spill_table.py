"""The table of a spill file, and everything that is done to it.

Path: [storage.spill] → [storage.spill_table] → disk. Every function may raise sqlite3.Error.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgtrace.errors import StorageUnavailable
from msgtrace.model.units import MIB, NS_PER_S
from msgtrace.storage.sqlite.connection import make_file, write_transaction

logger = logging.getLogger(__name__)

_FORMAT = 1
"""PRAGMA user_version of the file."""

_BUSY_TIMEOUT_S = 5.0

_MOST_READ = 256
"""Requests in one group, however small they are."""

_KEPT_FREE_BYTES = 16 * MIB
"""Disk that a spill leaves free: to delete requests takes some, too."""

_GIVEN_BACK_PAGES = 2048
"""Of 4 KiB, at once: what comes in meanwhile waits for a tenth of a second at most."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_CREATE = (
    """
    CREATE TABLE IF NOT EXISTS requests (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        received_at_ns INTEGER NOT NULL,
        encoding TEXT NOT NULL,
        span_count INTEGER NOT NULL,
        payload BLOB NOT NULL,
        set_aside TEXT
    )
    """,
    # Without what is set aside, however much that is; adopted requests are found by their age.
    """
    CREATE INDEX IF NOT EXISTS requests_waiting ON requests (received_at_ns)
    WHERE set_aside IS NULL
    """,
    f"PRAGMA user_version = {_FORMAT}",
)

_COLUMNS = "received_at_ns, encoding, span_count, payload, set_aside"

_INSERT = f"INSERT INTO requests ({_COLUMNS}) VALUES (?, ?, ?, ?, NULL)"  # noqa: S608 - constants

_REQUEST = "id, received_at_ns, encoding, span_count, payload"
_DRAINED = "FROM requests WHERE set_aside IS NULL ORDER BY received_at_ns, id"
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
        _put_aside(path)
        return _open(path)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also while a collector has the file."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S)


def require_disk(folder: Path, more_bytes: int) -> None:
    """Raise StorageUnavailable if so many more bytes would leave too little of the disk free.

    A spill that fills its disk could not be drained any more. Raises OSError.
    """
    needed_bytes = _KEPT_FREE_BYTES + 2 * more_bytes  # once in the write-ahead log
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise StorageUnavailable(
            f"{free_bytes} bytes are free on its disk, {needed_bytes} are needed"
        )


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


def insert_requests(
    connection: sqlite3.Connection, requests: Sequence[SpilledRequest]
) -> int | None:
    """Keep requests, in one transaction; return when the oldest came of all that wait."""
    rows = [
        (request.received_at_ns, request.encoding, request.span_count, request.payload)
        for request in requests
    ]
    with write_transaction(connection):
        connection.executemany(_INSERT, rows)
    return _oldest_ns(connection)


def read_oldest(
    connection: sqlite3.Connection, max_bytes: int, but: Collection[int] = ()
) -> list[SpilledRequest]:
    """The requests that came first of those that wait, up to so many bytes but at least one.

    but: ids that are left out.
    """
    found: list[SpilledRequest] = []
    found_bytes = 0
    with contextlib.closing(connection.execute(_OLDEST)) as rows:
        for row in rows:
            if row[0] in but:
                continue
            request = _request(row)
            is_full = found_bytes + len(request.payload) > max_bytes or len(found) == _MOST_READ
            if found and is_full:
                break
            found.append(request)
            found_bytes += len(request.payload)
    return found


def delete_requests(
    connection: sqlite3.Connection, requests: Sequence[SpilledRequest]
) -> int | None:
    """Delete them; return when the oldest came of those that wait."""
    with write_transaction(connection):
        connection.executemany(
            "DELETE FROM requests WHERE id = ?", [(request.id,) for request in requests]
        )
    return _oldest_ns(connection)


def set_request_aside(
    connection: sqlite3.Connection, request: SpilledRequest, reason: str
) -> int | None:
    """Set it aside; return when the oldest came of those that wait."""
    with write_transaction(connection):
        connection.execute("UPDATE requests SET set_aside = ? WHERE id = ?", (reason, request.id))
    return _oldest_ns(connection)


def move_from(connection: sqlite3.Connection, left: Path) -> int:
    """Copy all requests of another spill file, in one transaction; return how many."""
    with contextlib.closing(open_spill_file(left)):
        pass  # whatever its collector did not bring to an end is done or undone now
    connection.execute("ATTACH ? AS other", (str(left),))
    try:
        with write_transaction(connection):
            return connection.execute(_MOVE).rowcount
    finally:
        connection.execute("DETACH other")


def give_back_disk(connection: sqlite3.Connection) -> bool:
    """Shrink the file by some of what is not in use any more; return whether there is more."""
    before = _free_pages(connection)
    # Not `execute`, which stops after the first page.
    connection.executescript(f"PRAGMA incremental_vacuum({_GIVEN_BACK_PAGES})")
    after = _free_pages(connection)
    if not after:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return 0 < after < before


def bytes_of(requests: Sequence[SpilledRequest]) -> int:
    """Of the payloads."""
    return sum(len(request.payload) for request in requests)


def _put_aside(path: Path) -> None:
    """Keep a damaged file under another name.

    The write-ahead log goes first: SQLite would delete one that it finds beside a new file.
    """
    name = f"{path.name}.damaged-{time.time_ns()}"
    for suffix in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
    logger.error("spill_damaged", extra={"kept_as": name})


def _open(path: Path) -> sqlite3.Connection:
    """A file that exists is not written to: its disk may be full."""
    make_file(path)
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        [format_] = connection.execute("PRAGMA user_version").fetchone()
        if format_ == 0:
            # Before the first table: the pages of drained requests go back to the disk.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if format_ == 0:
            _make_table(connection)
        elif format_ != _FORMAT:
            raise StorageUnavailable(f"it has format {format_}, this program knows {_FORMAT}")
        read_content(connection)  # raises for damage, while the file can still be put aside
    except BaseException:
        connection.close()
        raise
    return connection


def _make_table(connection: sqlite3.Connection) -> None:
    with write_transaction(connection):
        for statement in _CREATE:
            connection.execute(statement)


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _oldest_ns(connection: sqlite3.Connection) -> int | None:
    row = connection.execute(_OLDEST_TIME).fetchone()
    return None if row is None else int(row[0])


def _request(row: tuple[int, int, str, int, bytes]) -> SpilledRequest:
    return SpilledRequest(
        id=row[0], received_at_ns=row[1], encoding=row[2], span_count=row[3], payload=row[4]
    )
