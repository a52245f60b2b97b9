"""Locks between processes that end with their holder, however that ends."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl


def lock_file(path: Path, locks: contextlib.ExitStack) -> bool:
    """Lock a file until `locks` is closed; False if somebody else has it. Raises OSError.

    The lock is a file beside it: closing a file of SQLite's would drop the locks that SQLite holds.
    On Windows nothing is locked.
    """
    lock = path.with_name(path.name + ".lock").open("a")
    if not _lock(lock):
        lock.close()
        return False
    locks.callback(lock.close)
    return True


def _lock(file: IO[str]) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
