"""Everything SQLite does to its files in this process, in order, with the bytes.

A VFS of our own stands before SQLite's for the time of a recording: it opens files as SQLite does
and takes down each write, truncation, sync, creation and deletion. The code under test is the real
one; what it believes to be on disk can then be compared with what a power cut would leave.
Source: sqlite.org/c3ref/vfs.html, sqlite.org/c3ref/io_methods.html.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CREATE, WRITE, TRUNCATE, SYNC, DELETE, NOTE = (
    "create",
    "write",
    "truncate",
    "sync",
    "delete",
    "note",
)

_OK = 0
_NAMED = 0x100 | 0x800 | 0x80000  # main database, its journal, its write-ahead log


@dataclass(frozen=True, slots=True)
class Operation:
    """What was done to the file `name`.

    note: of a DELETE, whether it is durable; of a NOTE, what the code under test believed.
    """

    kind: str
    name: str = ""
    offset: int = 0
    content: bytes = b""
    note: Any = None


@dataclass
class Recording:
    """The operations on the files of one folder."""

    folder: Path
    operations: list[Operation] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """Of the files that are there."""

    def note(self, what: Any) -> None:
        """Take down that something is durable, or was begun."""
        self.operations.append(Operation(NOTE, note=what))

    def deleted(self, path: Path, *, is_durable: bool = False) -> None:
        """Take down a deletion, durable if the folder was synced with it."""
        if path.parent == self.folder:
            self.names.discard(path.name)
            self.operations.append(Operation(DELETE, path.name, note=is_durable))

    def opened(self, name: str) -> None:
        """Take down a file that is new, whoever made it."""
        if name in self.names:
            return
        self.names.add(name)
        self.operations.append(Operation(CREATE, name))
        if content := (self.folder / name).read_bytes():
            self._linked(name, content)

    def _linked(self, name: str, content: bytes) -> None:
        """Take down what a file held that was made under another name, `.name-…`, and linked."""
        done = [
            each.kind
            for each in self.operations
            if each.name.startswith(f".{name}-") and each.kind in (WRITE, TRUNCATE, SYNC)
        ]
        assert done, "a file from before the recording"
        assert done[-1] == SYNC, "a file that was linked before it was synced"
        self.operations += [Operation(WRITE, name, 0, content), Operation(SYNC, name)]


class _IoMethods(Structure):
    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        *((f"other{number}", c_void_p) for number in range(13)),
    )


class _Vfs(Structure):
    _fields_ = (
        ("version", c_int),
        ("file_bytes", c_int),
        ("max_pathname", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        *((f"other{number}", c_void_p) for number in range(14)),
    )


class _File(Structure):
    _fields_ = (("methods", POINTER(_IoMethods)),)


# The name as it is: SQLite keeps the pointer.
_Open = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Close = ctypes.CFUNCTYPE(c_int, c_void_p)
_Write = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = ctypes.CFUNCTYPE(c_int, c_void_p, c_int)


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[Recording]:
    """Record what connections do that are opened while the block runs.

    They must be closed before it ends.
    """
    recording = Recording(folder)
    vfs = _RecordingVfs(recording)
    library = _library()
    assert library.sqlite3_vfs_register(ctypes.byref(vfs.struct), 1) == _OK
    try:
        yield recording
        assert vfs.open_files == {}, "a file is still open"
    finally:
        assert library.sqlite3_vfs_unregister(ctypes.byref(vfs.struct)) == _OK


class _RecordingVfs:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._real = _library().sqlite3_vfs_find(None).contents
        self._real_open = _Open(self._real.open)
        self._real_delete = _Delete(self._real.delete)
        self.open_files: dict[int, str] = {}
        self._methods: dict[int, _Methods] = {}
        """By the address of SQLite's own, which are one set for each kind of locking."""
        self.struct = _copy(self._real)
        self.struct.next = None
        self.struct.name = b"recording"
        # Kept in attributes: ctypes does not keep them alive.
        self._open_callback, self._delete_callback = _Open(self._open), _Delete(self._delete)
        self.struct.open = _address(self._open_callback)
        self.struct.delete = _address(self._delete_callback)

    def record(self, kind: str, file: int, offset: int = 0, content: bytes = b"") -> None:
        name = self.open_files[file]
        self._recording.operations.append(Operation(kind, name, offset, content))

    def _open(self, _: int, name: int | None, file: int, flags: int, out_flags: int) -> int:
        code: int = self._real_open(ctypes.addressof(self._real), name, file, flags, out_flags)
        path = Path() if name is None else Path(os.fsdecode(ctypes.string_at(name)))
        if code == _OK and flags & _NAMED and path.parent == self._recording.folder:
            self.open_files[file] = path.name
            self._recording.opened(path.name)
            methods = _File.from_address(file).methods
            key = ctypes.addressof(methods.contents)
            if key not in self._methods:
                self._methods[key] = _Methods(self, methods.contents)
            _File.from_address(file).methods = ctypes.pointer(self._methods[key].struct)
        return code

    def _delete(self, _: int, name: bytes, sync_folder: int) -> int:
        code: int = self._real_delete(ctypes.addressof(self._real), name, sync_folder)
        path = Path(os.fsdecode(name))
        if code == _OK and path.parent == self._recording.folder:
            self._recording.deleted(path, is_durable=bool(sync_folder))
        return code


class _Methods:
    """SQLite's methods of a file, with ours before those that change it."""

    def __init__(self, vfs: _RecordingVfs, real: _IoMethods) -> None:
        self.struct = _copy(real)
        real_close, real_sync = _Close(real.close), _Sync(real.sync)
        real_write, real_truncate = _Write(real.write), _Truncate(real.truncate)

        def write(file: int, content: int, count: int, offset: int) -> int:
            vfs.record(WRITE, file, offset, ctypes.string_at(content, count))
            code: int = real_write(file, content, count, offset)
            return code

        def truncate(file: int, size: int) -> int:
            vfs.record(TRUNCATE, file, size)
            code: int = real_truncate(file, size)
            return code

        def sync(file: int, flags: int) -> int:
            code: int = real_sync(file, flags)
            if code == _OK:
                vfs.record(SYNC, file)
            return code

        def close(file: int) -> int:
            del vfs.open_files[file]
            code: int = real_close(file)
            return code

        self._callbacks = _Write(write), _Truncate(truncate), _Sync(sync), _Close(close)
        self.struct.write, self.struct.truncate, self.struct.sync, self.struct.close = map(
            _address, self._callbacks
        )


def _library() -> Any:
    """The SQLite that Python uses, found through Python's own module."""
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    return library


def _copy(struct: Any) -> Any:
    return type(struct).from_buffer_copy(struct)


def _address(callback: Callable[..., int]) -> int:
    address = ctypes.cast(callback, c_void_p).value  # type: ignore[arg-type]  # a function of ctypes
    assert address is not None
    return address
