"""The comparison with another store runs, whatever the other is."""

from __future__ import annotations

import re

import pytest

from benchmarks import peer
from benchmarks.processes import running_collector, wait_for_port

pytestmark = [pytest.mark.end_to_end, pytest.mark.postgres]


def test_another_store_stands_beside_ours_on_both_databases(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_collector(sqlite_url) as (other, ports):
        wait_for_port(ports["http"])

        options = ["--wire", "http", "--requests", "6", "--rounds", "1"]
        peer.main(["other", "--port", str(ports["http"]), "--pid", str(other.pid), *options])

    printed = capsys.readouterr().out
    for row in ("other", "msgtrace, sqlite", "msgtrace, postgres"):
        [figures] = re.findall(rf"^{row} +\|(.*)$", printed, re.MULTILINE)
        rate, cpu, _, _, refused = (float(cell.replace(",", "")) for cell in figures.split("|"))
        assert rate > 0
        assert cpu > 0
        assert refused == 0
