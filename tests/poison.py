"""Make a real database refuse spans for their data, as an operator's own rule would."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from tests.postgres_server import execute_each

POISON = "poison"
"""The name of a span that is refused."""

_POSTGRES = f"ALTER TABLE spans ADD CONSTRAINT no_poison CHECK (name <> '{POISON}')"
_SQLITE = f"""CREATE TRIGGER no_poison BEFORE INSERT ON spans WHEN NEW.name = '{POISON}'
BEGIN SELECT RAISE(ABORT, 'poison in the text of a trigger'); END"""


def execute(database_url: str, *statements: str) -> None:
    """Run SQL on a database of either backend, as somebody else with access to it would.

    Not within a running event loop.
    """
    if not database_url.startswith("sqlite"):
        execute_each(database_url, *statements)
        return
    with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        for statement in statements:
            with connection:
                connection.execute(statement)


def forbid_poison(database_url: str) -> None:
    """From now on the database refuses spans named POISON."""
    execute(database_url, _SQLITE if database_url.startswith("sqlite") else _POSTGRES)


def allow_poison(database_url: str) -> None:
    """The database takes them again."""
    is_sqlite = database_url.startswith("sqlite")
    execute(
        database_url,
        "DROP TRIGGER no_poison" if is_sqlite else "ALTER TABLE spans DROP CONSTRAINT no_poison",
    )


@contextlib.contextmanager
def poison_forbidden(database_url: str) -> Iterator[None]:
    """The database refuses spans named POISON within the block."""
    forbid_poison(database_url)
    try:
        yield
    finally:
        allow_poison(database_url)
