"""The benchmark of queries runs, and prints every question beside its goal."""

from __future__ import annotations

import re
import tempfile

import pytest

from benchmarks import query
from tests.conftest import BACKENDS

pytestmark = pytest.mark.end_to_end

QUESTIONS = 12


@pytest.mark.parametrize("database", BACKENDS)
def test_questions_are_printed_beside_their_goals(
    database: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(query, "PARAMETERS", 3)
    monkeypatch.setattr(query, "SHARED_BUFFERS", "64MB")
    monkeypatch.setattr(query, "LARGE_TRACE_SPANS", 600)
    # Not below pytest's own folder, which the user of a PostgreSQL that root starts may not enter.
    with tempfile.TemporaryDirectory(prefix="msgtrace-q-") as folder:
        arguments = ["--data", folder, "--database", database, "--spans", "6000"]
        query.main(arguments)
        printed = capsys.readouterr().out
        query.main([*arguments, "--only", "newest"])
        printed_again = capsys.readouterr().out

    row = r"^[a-z ,()0-9]+ +\d+ +[\d.]+ +[\d.]+ +[\d.]+( +[\d.]+)?( +MISSED)? *$"
    assert len(re.findall(row, printed, re.MULTILINE)) == QUESTIONS
    assert re.search(r"\d+ filters of attributes", printed)
    assert re.search(r"tree, whole, ms +\d+ +≤", printed)
    assert "list newest" in printed_again
    assert "filters" not in printed_again  # the data was kept
