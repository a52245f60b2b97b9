"""Which migrations exist, and which of them a database still needs.

Applying them is the backend's part. Migrations are plain SQL, `migrations/<backend>/NNNN_name.sql`,
applied in order under a lock and recorded with a checksum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from msgtrace.errors import SchemaMismatch

_PACKAGE = Path(__file__).resolve().parents[1]

_INDEX_CHANGE = re.compile(
    r"^(CREATE|DROP) (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF (?:NOT )?EXISTS )?(\w+)"
    r"(?: ON (?:ONLY )?(\w+))?",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `name` is the file's stem, `checksum` the SHA-256 of its text in hex."""

    number: int
    name: str
    sql: str
    checksum: str


@cache
def load_migrations(backend: str) -> tuple[Migration, ...]:
    """All migrations of a backend ("postgres", "sqlite"), by number."""
    # In an installed wheel the folder lies inside the package, in a source tree beside it.
    roots = (_PACKAGE / "migrations", _PACKAGE.parent / "migrations")
    folder = next(root / backend for root in roots if root.is_dir())
    return tuple(_load(path) for path in sorted(folder.glob("*.sql")))


def pending_migrations(backend: str, applied: Mapping[int, str]) -> list[Migration]:
    """What a database still needs. `applied` maps the numbers it has to their checksums.

    Raises SchemaMismatch if the database is newer than this program, or has a migration that
    differs from ours.
    """
    known = load_migrations(backend)
    newest = known[-1].number
    if applied and max(applied) > newest:
        raise SchemaMismatch(
            f"the database has schema {max(applied)}, newer than the {newest} this program knows; "
            "upgrade msgtrace, or use another database"
        )
    for migration in known:
        if applied.get(migration.number, migration.checksum) != migration.checksum:
            raise SchemaMismatch(
                f"migration {migration.name} was applied to the database with another content; "
                "the database belongs to another build of msgtrace"
            )
    return [migration for migration in known if migration.number not in applied]


def expected_indexes(backend: str) -> dict[str, str]:
    """The names of the indexes that the migrations end with, each with its table."""
    expected: dict[str, str] = {}
    for migration in load_migrations(backend):
        for verb, name, table in _INDEX_CHANGE.findall(migration.sql):
            if verb == "CREATE":
                expected[name] = table
            else:
                expected.pop(name, None)
    return expected


def require_none_pending(pending: list[Migration]) -> None:
    """Raise SchemaMismatch, with the cure, if any migration is pending."""
    if pending:
        names = ", ".join(migration.name for migration in pending)
        raise SchemaMismatch(f"the database lacks {names}; run `msgtrace-admin migrate`")


def _load(path: Path) -> Migration:
    sql = path.read_text(encoding="utf-8")
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(int(path.stem.partition("_")[0]), path.stem, sql, checksum)
