"""The benchmark of ingest runs, and prints its figures beside their goals."""

from __future__ import annotations

import re

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import ingest
from benchmarks.export_requests import SPANS_PER_REQUEST, Renewed
from benchmarks.goals import Goal
from tests.conftest import BACKENDS

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("database", BACKENDS)
def test_figures_are_printed_beside_their_goals(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest.main(["--requests", "6", "--rounds", "1", "--wires", "grpc", "--databases", database])

    printed = capsys.readouterr().out
    assert re.search(rf"{database} grpc +\| +[\d,]+ \| +\d+% \|", printed)
    [decoder] = re.findall(r"decoder: (\w+)", printed)
    least = f"{ingest.LEAST_SHARE[decoder][database]:.0%}"
    assert re.search(rf"{database} grpc, of the ceiling +\d+% +≥ {least} +(met|NOT MET)", printed)
    [size] = re.findall(rf"{database} grpc, bytes a span +(\d+) +≤", printed)
    assert 200 < int(size) < 2_000


def test_the_long_form_prints_each_part(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "TENTHS", 3)

    ingest.main(["--spans", str(3 * SPANS_PER_REQUEST), "--databases", "sqlite"])

    printed = capsys.readouterr().out
    assert printed.count("rows, ") == 3
    assert f"up to {3 * SPANS_PER_REQUEST:,} rows" in printed
    assert re.search(r"last tenth of first +\d+% +≥ 85%", printed)


def test_a_goal_says_whether_it_is_met() -> None:
    assert str(Goal("share", 0.41, ".0%", at_least=0.4)).split() == [
        "share",
        "41%",
        "≥",
        "40%",
        "met",
    ]
    assert "NOT MET" in str(Goal("share", 0.39, ".0%", at_least=0.4))
    assert "NOT MET" in str(Goal("bytes", 451, ".0f", at_most=450))


def test_renewed_requests_have_new_traces_and_the_same_spans_otherwise() -> None:
    renewed = Renewed(1, seed=3)
    one, other = (ExportTraceServiceRequest.FromString(body) for body in renewed.take(2))

    spans = [each.resource_spans[0].scope_spans[0].spans for each in (one, other)]
    ids = [{span.trace_id for span in each} for each in spans]
    assert [len(each) for each in ids] == [32, 32]
    assert ids[0].isdisjoint(ids[1])
    for first, second in zip(*spans, strict=True):
        assert first.span_id == second.span_id
        assert first.attributes == second.attributes
        assert first.end_time_unix_nano - first.start_time_unix_nano == (
            second.end_time_unix_nano - second.start_time_unix_nano
        )
