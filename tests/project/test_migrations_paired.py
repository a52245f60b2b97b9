"""The migrations of both backends go together and say what they cost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MIGRATIONS = Path(__file__).parents[2] / "migrations"
FILES = sorted(MIGRATIONS.glob("*/*"))
BACKENDS = ("postgres", "sqlite")


def names(backend: str) -> list[str]:
    return sorted(path.name for path in (MIGRATIONS / backend).iterdir())


def test_there_are_migrations() -> None:
    assert FILES


def test_both_backends_have_the_same_migrations() -> None:
    assert names("postgres") == names("sqlite")


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_run_from_one_without_a_gap(backend: str) -> None:
    numbers = [int(name[:4]) for name in names(backend)]

    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_migration_is_named_and_explained(path: Path) -> None:
    assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", path.name)

    head = re.match(r"(?:--.*\n)+", path.read_text())
    assert head, "begins with a comment"
    assert head[0].startswith(f"-- {path.stem} "), "the comment begins with the file's name"
    keys = re.findall(r"^-- (Why|Cost|Order): \S", head[0], flags=re.MULTILINE)
    assert keys == ["Why", "Cost", "Order"]
