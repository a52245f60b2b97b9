"""docs/conformance.md says what tests/conformance shows, which is all that the page lists."""

from __future__ import annotations

import re

import pytest

from tests.project.render_conformance import PAGE, ROOT, ROW, refresh, shown_names

LINES = PAGE.read_text().splitlines()
ROWS = {int(found[1]): found for line in LINES if (found := ROW.match(line))}


def test_the_conformance_page_is_fresh() -> None:
    page = PAGE.read_text()

    assert page == refresh(page), "docs/conformance.md is stale: run `make docs`"


def test_rows_are_numbered_without_a_gap() -> None:
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
    assert len(ROWS) == sum(bool(re.match(r"\| \d", line)) for line in LINES), "each line is read"


@pytest.mark.parametrize("row", ROWS)
def test_every_requirement_is_shown_or_excused(row: int) -> None:
    _, _, level, _, shown = ROWS[row].groups()

    assert shown
    if shown.startswith("not offered: "):
        assert level in ("MAY", "PEER"), "what a receiver must do is offered"
    for path in re.findall(r"`(tests/[^`]+)`", shown):
        assert (ROOT / path).exists()


def test_every_case_names_a_requirement() -> None:
    named = {
        int(number) for _, name in shown_names() for number in re.findall(r"row_(\d\d)_", name)
    }

    assert named <= ROWS.keys()
