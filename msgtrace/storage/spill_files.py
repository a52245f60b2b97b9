"""Which file of a spill folder belongs to whom.

Each database has a folder. It may serve several collectors: each locks a file of its own, for as
long as it lives. A lock ends with its process, however that ends, so a file without one was left
behind. On Windows, where files are not locked, a folder may serve one collector only.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

from msgtrace.errors import InvalidSetting
from msgtrace.settings.passwords import mask_password
from msgtrace.storage.file_lock import lock_file

_MOST_FILES = 64
"""Collectors that may share one folder."""


def folder_of(spill_dir: str, database_url: str, schema: str = "") -> Path:
    """The folder for one database: what was meant for it must not end in another.

    Known by its URL and schema; a new password makes no other folder.
    """
    url = mask_password(database_url)
    known_by = f"{url}\n{schema}" if schema else url
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", url.partition("?")[0].rpartition("/")[2])
    digest = hashlib.sha256(known_by.encode()).hexdigest()[:8]
    return Path(spill_dir).expanduser() / f"{name}-{digest}"


def spill_files(folder: Path) -> list[Path]:
    """The spill files that there are, in the order of their numbers."""
    return [path for number in range(_MOST_FILES) if (path := _file(folder, number)).exists()]


def spill_folders(spill_dir: str) -> list[Path]:
    """The folders that hold spill files, sorted. Raises OSError if they cannot be read."""
    root = Path(spill_dir).expanduser()
    return sorted(path for path in root.glob("*/") if spill_files(path)) if root.exists() else []


def is_in_use(path: Path) -> bool:
    """Whether a process has locked the file. Raises OSError."""
    with contextlib.ExitStack() as lock:
        return not lock_file(path, lock)


def lock_files(folder: Path, locks: contextlib.ExitStack) -> tuple[Path, list[Path]]:
    """The first free file, existing or not, and all others that were left behind.

    All are locked until `locks` is closed. Raises InvalidSetting for a folder that cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        numbers = iter(range(_MOST_FILES))
        own = next((n for n in numbers if lock_file(_file(folder, n), locks)), None)
        left = [
            path
            for number in numbers
            if (path := _file(folder, number)).exists() and lock_file(path, locks)
        ]
    except OSError as error:
        raise InvalidSetting(
            "MSGTRACE_SPILL_DIR", f"cannot write in {folder}: {error.strerror or error}"
        ) from error
    if own is None:
        raise InvalidSetting(
            "MSGTRACE_SPILL_DIR", f"{folder} is used by {_MOST_FILES} collectors; take another"
        )
    return _file(folder, own), left


def _file(folder: Path, number: int) -> Path:
    return folder / f"spill-{number}.db"
