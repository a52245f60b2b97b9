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
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Self, TypeVar

from msgtrace.errors import (
    InvalidSetting,
    Overloaded,
    SpillUnavailable,
    StorageError,
    StorageUnavailable,
)
from msgtrace.storage.spill_files import lock_files
from msgtrace.storage.spill_table import (
    SpillContent,
    SpilledRequest,
    bytes_of,
    delete_requests,
    give_back_disk,
    insert_requests,
    move_from,
    open_spill_file,
    read_content,
    read_oldest,
    require_disk,
    set_request_aside,
)
from msgtrace.storage.sqlite.connection import ConnectionThread

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Spill:
    """A spill that this process has locked.

    Every method may raise SpillUnavailable: the disk is full or broken.
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
                # A caller that was cancelled did not see what became of its call.
                with contextlib.suppress(SpillUnavailable):
                    spill.content = await spill._run(read_content)
            finally:
                await thread.aclose()

    async def append(self, requests: Sequence[SpilledRequest]) -> None:
        """Keep the requests, all or none; returns when they are on disk.

        Raises Overloaded if they would be more than the spill may hold, SpillUnavailable also while
        there is still a little room on the disk: without it nothing could be removed any more.
        """
        more_bytes = bytes_of(requests)
        if self.content.payload_bytes + more_bytes > self.max_bytes:
            raise Overloaded(
                "the database is away, and the spill that replaces it holds"
                f" {self.content.payload_bytes} bytes of at most {self.max_bytes}"
            )

        def insert(connection: sqlite3.Connection) -> int | None:
            require_disk(self.path.parent, more_bytes)
            return insert_requests(connection, requests)

        oldest_ns = await self._run(insert)
        self.content = dataclasses.replace(
            self.content,
            requests=self.content.requests + len(requests),
            payload_bytes=self.content.payload_bytes + more_bytes,
            oldest_ns=oldest_ns,
        )

    async def oldest(self, max_bytes: int, but: Collection[int] = ()) -> list[SpilledRequest]:
        """The requests that came first, up to so many bytes but at least one if there is any.

        but: ids that are left out.
        """
        found = await self._run(lambda connection: read_oldest(connection, max_bytes, but))
        if not found:
            self.content = await self._run(read_content)
        return found

    async def remove(self, requests: Sequence[SpilledRequest]) -> None:
        """Forget requests that are stored, and give back their disk when none waits any more."""
        oldest_ns = await self._run(lambda connection: delete_requests(connection, requests))
        self.content = dataclasses.replace(
            self.content,
            requests=self.content.requests - len(requests),
            payload_bytes=self.content.payload_bytes - bytes_of(requests),
            oldest_ns=oldest_ns,
        )
        if not self.content.requests:
            await self._give_back_disk()

    async def set_aside(self, request: SpilledRequest, reason: str) -> None:
        """Keep a request, but drain it no more. reason: nothing of its content."""
        oldest_ns = await self._run(
            lambda connection: set_request_aside(connection, request, reason)
        )
        self.content = dataclasses.replace(
            self.content,
            requests=self.content.requests - 1,
            set_aside=self.content.set_aside + 1,
            oldest_ns=oldest_ns,
        )

    async def _begin(self, left_behind: Sequence[Path]) -> None:
        try:
            for left in left_behind:
                await self._adopt(left)
            if left_behind:
                await self._give_back_disk()
            self.content = await self._run(read_content)
        except SpillUnavailable as error:
            problem = f"{self.path}: {self._cause(error)}"
            raise InvalidSetting("MSGTRACE_SPILL_DIR", problem) from error

    def _cause(self, error: SpillUnavailable) -> Exception:
        """Of a full disk SQLite speaks less clearly."""
        try:
            require_disk(self.path.parent, 0)
        except (StorageUnavailable, OSError) as cause:
            return cause
        return error

    async def _adopt(self, left: Path) -> None:
        """Take over the requests of a file.

        A crash in between leaves them in both, which the database does not double.
        """

        def move(connection: sqlite3.Connection) -> int:
            require_disk(left.parent, left.stat().st_size)
            return move_from(connection, left)

        try:
            moved = await self._run(move)
        except SpillUnavailable as error:
            logger.warning("spill_not_adopted", extra={"file": left.name, "reason": str(error)})
            return
        for suffix in ("", "-wal", "-shm"):
            left.with_name(left.name + suffix).unlink(missing_ok=True)
        if moved:
            logger.info("spill_adopted", extra={"file": left.name, "requests": moved})

    async def _give_back_disk(self) -> None:
        with contextlib.suppress(SpillUnavailable):  # on a full disk the next time will do
            while await self._run(give_back_disk) and not self.content.requests:
                pass

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._thread.run(work)
        except (StorageError, StorageUnavailable, OSError) as error:
            raise SpillUnavailable(f"the spill cannot be used: {error}") from error
