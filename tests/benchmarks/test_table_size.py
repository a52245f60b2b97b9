"""The benchmark of table designs runs, and prints what each takes."""

from __future__ import annotations

import re

import pytest

from benchmarks import table_size
from benchmarks.table_designs import POSTGRES, SQLITE
from tests.conftest import BACKENDS

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("database", BACKENDS)
def test_each_design_is_measured(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    table_size.main(["--requests", "2", "--databases", database])

    printed = capsys.readouterr().out
    for design in {"sqlite": SQLITE, "postgres": POSTGRES}[database]:
        [line] = re.findall(rf"^{re.escape(design.name)} +\|(.*)$", printed, re.MULTILINE)
        if "lz4" in design.name and "not on this server" in line:
            continue
        total, rows, indexes = line.split("|")[:3]
        assert 200 < int(total) < 2_000
        assert (int(rows) < int(total)) == bool(design.indexes)
        assert len(re.findall(r"\d+", indexes)) == len(design.indexes)
