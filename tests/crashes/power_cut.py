"""What a disk may hold after its power was cut at some moment of a recording.

What was synced is there. Of what was written to a file since its last sync, any part may be there,
in any order, the last piece torn at any byte or garbage; and a file that was made or deleted since
its folder was last synced may be there or not. So it is for each file by itself.
SQLite syncs the folder with the first sync of a journal or write-ahead log that it has made.
Source: sqlite.org/atomiccommit.html, section 2; sqlite.org/psow.html.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crashes.recorder import (
    CREATE,
    DELETE,
    NOTE,
    SYNC,
    TRUNCATE,
    WRITE,
    Operation,
    Recording,
)

EVERYTHING, NOTHING, SOMETHING = "everything", "nothing", "something"
FATES = (EVERYTHING, NOTHING, SOMETHING)
"""Of what was not synced. With everything there it is a kill -9, which loses no page cache."""


@dataclass
class _File:
    """durable: None if the file is not there after a power cut, whatever was written to it."""

    durable: bytearray | None = None
    gone: bytearray | None = None
    """What it held before it was deleted, as long as the deletion may be undone."""
    is_linked: bool = False
    """Whether its entry in the folder is durable."""
    pending: list[Operation] = field(default_factory=list)


@dataclass(frozen=True)
class Moment:
    """position: how many operations were done. notes: what had been noted by then."""

    position: int
    notes: Sequence[Any]


class Disk:
    """The files of a recording at one moment after the other."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def apply(self, operation: Operation) -> None:
        if operation.kind == NOTE:
            return
        file = self._files.setdefault(operation.name, _File())
        if operation.kind == CREATE:  # by SQLite, or empty by whoever prepared the file
            self._files[operation.name] = _File(
                durable=bytearray(), gone=file.gone, is_linked=False
            )
        elif operation.kind == DELETE:
            content = file.durable if file.is_linked else None
            self._files[operation.name] = _File(gone=None if operation.note else content)
        elif operation.kind == SYNC:
            for each in file.pending:
                _change(file, each, each.content)
            file.pending.clear()
            if not file.is_linked and operation.name.endswith(("-wal", "-journal")):
                self._sync_folder()
        else:
            file.pending.append(operation)

    def write_to(self, folder: Path, fate: str, chance: random.Random) -> None:
        """Make the files as the cut leaves them."""
        for name, file in self._files.items():
            content = _after_cut(file, fate, chance)
            if content is not None:
                (folder / name).write_bytes(content)

    def _sync_folder(self) -> None:
        for each in self._files.values():
            each.is_linked = each.durable is not None
            each.gone = None


def moments(recording: Recording) -> Iterator[tuple[Moment, Disk]]:
    """Each moment of the recording with the disk as it is then; good until the next one."""
    disk = Disk()
    notes: list[Any] = []
    for position, operation in enumerate(recording.operations, start=1):
        disk.apply(operation)
        if operation.kind == NOTE:
            notes.append(operation.note)
        yield Moment(position, notes), disk


def _after_cut(file: _File, fate: str, chance: random.Random) -> bytes | None:
    if file.durable is None:
        is_back = fate == NOTHING or (fate == SOMETHING and chance.random() < 0.5)
        return bytes(file.gone) if file.gone is not None and is_back else None
    if not file.is_linked and (fate == NOTHING or (fate == SOMETHING and chance.random() < 0.3)):
        return None if file.gone is None else bytes(file.gone)
    left = _File(durable=bytearray(file.durable))
    if fate == EVERYTHING:
        for each in file.pending:
            _change(left, each, each.content)
    elif fate == SOMETHING:
        share = chance.random()
        for each in file.pending:
            if chance.random() < share:
                _change(left, each, _torn(each.content, chance))
    assert left.durable is not None
    return bytes(left.durable)


def _torn(content: bytes, chance: random.Random) -> bytes:
    """The bytes of one write: whole, its beginning, or with garbage in it."""
    kind = chance.random()
    if kind < 0.5 or not content:
        return content
    cut = chance.randrange(len(content))
    if kind < 0.8:
        return content[:cut]
    return content[:cut] + chance.randbytes(len(content) - cut)


def _change(file: _File, operation: Operation, content: bytes) -> None:
    assert file.durable is not None
    if operation.kind == TRUNCATE:
        del file.durable[operation.offset :]
    elif content:
        assert operation.kind == WRITE
        end = operation.offset + len(content)
        if len(file.durable) < end:
            file.durable.extend(bytes(end - len(file.durable)))
        file.durable[operation.offset : end] = content
