"""The last column of docs/conformance.md: `make docs` fills it in, tests/project compares it.

The page is the table of requirements; the names of tests in it follow from the tests. A test shows
a row if its name, or the id of its case, contains `row_` and the row's number in two digits. Other
entries of the column, tests elsewhere and what is not offered, stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"
TESTS = ROOT / "tests" / "conformance"

ROW = re.compile(r"^\| (\d+) \| (.+) \| (MUST|SHOULD|PEER|POLICY|MAY) \| (.+) \| (.*) \|$")

_NAME = re.compile(r'(?:def test_|")(row_\d\d_\w+)')

Names = Sequence[tuple[str, str]]
"""(file, name of a test or id of a case)."""


def refresh(page: str) -> str:
    """The page with the names of the tests that there are."""
    names = shown_names()
    return "\n".join(_refresh_line(line, names) for line in page.split("\n"))


def shown_names() -> Names:
    """Every test and case of tests/conformance that shows a row."""
    return [
        (path.name, name)
        for path in sorted(TESTS.glob("*.py"))
        for name in _NAME.findall(path.read_text())
    ]


def is_generated(entry: str) -> bool:
    """Whether an entry of the last column names tests of tests/conformance."""
    return re.match(r"`\w+\.py` `row_", entry) is not None


def _refresh_line(line: str, names: Names) -> str:
    found = ROW.match(line)
    if found is None:
        return line
    number, text, level, source, shown = found.groups()
    kept = [entry for entry in shown.split("; ") if entry and not is_generated(entry)]
    cells = [number, text, level, source, "; ".join([*_entries(int(number), names), *kept])]
    return f"| {' | '.join(cells)} |"


def _entries(row: int, names: Names) -> list[str]:
    files: dict[str, list[str]] = {}
    for file, name in names:
        if f"row_{row:02d}_" in name:
            files.setdefault(file, []).append(f"`{name}`")
    return [f"`{file}` {', '.join(shown)}" for file, shown in files.items()]


if __name__ == "__main__":
    sys.stdout.write(refresh(PAGE.read_text()))
