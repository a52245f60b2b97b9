"""docs/limits.md states the numbers that the code holds."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from msgtrace import connections
from msgtrace.settings.table import PREFIX, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
ROWS = re.findall(r"^\| (.+) \| ([\d,]+)(?: (s|KiB|MiB))? \| `([\w.]+)` \|$", PAGE, re.MULTILINE)

UNITS = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024**2}


def held(name: str) -> float:
    """The number in the code, in seconds or bytes if it has a unit."""
    if name.startswith(PREFIX):
        value: Any = getattr(Settings(), name.removeprefix(PREFIX).lower())
    else:
        module, _, constant = name.rpartition(".")
        value = getattr(importlib.import_module(module), constant)
    return float(value) / (1000 if name.endswith("_MS") else 1)


def unit_of(name: str) -> str:
    """Which kind of unit the name promises."""
    if name.endswith(("_S", "_MS")):
        return "time"
    return "size" if name.endswith("_BYTES") else "count"


@pytest.mark.parametrize(("number", "unit", "name"), [row[1:] for row in ROWS])
def test_a_limit_is_what_the_page_says(number: str, unit: str, name: str) -> None:
    assert int(number.replace(",", "")) * UNITS[unit] == held(name)
    assert {"": "count", "s": "time"}.get(unit, "size") == unit_of(name)


def test_every_row_is_understood() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    headings = [line for line in lines if line == "| limit | value | where |"]

    assert len(ROWS) == len(lines) - len(headings) > 0


def test_every_limit_of_a_connection_is_on_the_page() -> None:
    numbers = {
        f"{connections.__name__}.{name}"
        for name, value in vars(connections).items()
        if name.isupper() and name != "KIB" and isinstance(value, int | float)
    }

    assert numbers <= {row[3] for row in ROWS}
