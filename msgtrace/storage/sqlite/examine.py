"""What the doctor looks at in a SQLite file."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

from msgtrace.model.maintenance import Finding, ok, problem, warning
from msgtrace.storage.migrate import expected_indexes
from msgtrace.storage.sqlite.purge import INCREMENTAL

_LEAST_VERSION = (3, 37, 0)
"""The first with STRICT tables."""

_INDEXES = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"

_QUICK_CHECK_MOST_BYTES = 256 * 2**20
"""A larger file takes too long to read as a whole."""


def examine_file(connection: sqlite3.Connection, path: Path) -> list[Finding]:
    """All checks of the file; changes nothing."""
    return [
        _version(),
        _rights(path),
        _indexes(connection),
        _content(connection),
        _room(path),
        _gives_back(connection),
    ]


def _version() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _LEAST_VERSION:
        wanted = ".".join(map(str, _LEAST_VERSION))
        return problem(
            "version", f"SQLite {version}", f"use a Python with SQLite {wanted} or newer"
        )
    return ok("version", f"SQLite {version}")


def _rights(path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return warning(
            "permissions",
            f"{path} may be read by others (mode {mode:o}); traces hold prompts and personal data",
            f"chmod 600 {path}",
        )
    return ok("permissions", f"{path} is its owner's alone")


def _indexes(connection: sqlite3.Connection) -> Finding:
    there = {name for (name,) in connection.execute(_INDEXES)}
    missing = sorted(expected_indexes("sqlite").keys() - there)
    if missing:
        return problem(
            "indexes",
            f"missing: {', '.join(missing)}",
            "create them as the files in migrations/sqlite do",
        )
    return ok("indexes", f"all {len(there)} are there")


def _content(connection: sqlite3.Connection) -> Finding:
    (size,) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchone()
    if size > _QUICK_CHECK_MOST_BYTES:
        return ok("content", "not read as a whole: the file is too large for a quick check")
    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        return problem("content", f"the file is damaged: {said}", "restore it from a backup")
    return ok("content", "the file is sound")


def _room(path: Path) -> Finding:
    free, size = shutil.disk_usage(path.parent).free, path.stat().st_size
    if free < max(size // 10, 64 * 2**20):
        return problem(
            "disk room",
            f"{free // 2**20:,} MiB are free beside a file of {size // 2**20:,} MiB",
            "make room, or set MSGTRACE_RETENTION or MSGTRACE_MAX_DATABASE_BYTES",
        )
    return ok("disk room", f"{free // 2**20:,} MiB are free")


def _gives_back(connection: sqlite3.Connection) -> Finding:
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != INCREMENTAL:
        return warning(
            "space",
            "the file was made by a version that could not give space back bit by bit",
            "stop the collector and run `msgtrace-admin vacuum --full` once",
        )
    return ok("space", "deleted spans' space is given back")
