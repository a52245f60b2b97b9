"""`msgtrace export` and `import`: all that is stored in one database comes into the other."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.cli import export_traces
from msgtrace.cli.main import main
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from tests.batches import request, span, trace_id_of
from tests.end_to_end.captured import CAPTURED, read
from tests.end_to_end.http_proxy import http_proxy
from tests.end_to_end.processes import (
    ROOT,
    RunningProcess,
    child_environment,
    run_to_end,
    running,
    wait_until,
)
from tests.end_to_end.senders import export
from tests.end_to_end.test_every_field import full_request
from tests.fuzz.exports import requests

DIRECTIONS = [
    pytest.param("sqlite", "postgres", "traces.jsonl.zst", marks=pytest.mark.postgres),
    pytest.param("postgres", "sqlite", "traces.binpb.gz", marks=pytest.mark.postgres),
]


def made_up_requests(count: int) -> list[ExportTraceServiceRequest]:
    """Requests of any content, always the same ones."""
    made: list[ExportTraceServiceRequest] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def collect(each: ExportTraceServiceRequest) -> None:
        made.append(each)

    collect()
    return made


def all_traces(service: RunningProcess) -> dict[str, Any]:
    """Every trace as the API shows it, by id."""
    traces: dict[str, Any] = {}
    place: dict[str, str] = {}
    while True:
        page = service.get("/api/v1/traces", limit=1000, **place)
        for summary in page["traces"]:
            trace = service.get_trace(summary["trace_id"])
            trace["cost"] = pytest.approx(trace["cost"])  # sums depend on the order of arrival
            traces[summary["trace_id"]] = trace
        if page["next_cursor"] is None:
            return traces
        place = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize(("source", "target", "name"), DIRECTIONS)
def test_everything_that_is_stored_comes_into_the_other_database(
    source: str,
    target: str,
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    file = str(tmp_path / name)
    with (
        running("start", request.getfixturevalue(f"{source}_url")) as first,
        running("start", request.getfixturevalue(f"{target}_url")) as second,
    ):
        for each in [read(captured)[1] for captured in CAPTURED] + made_up_requests(30):
            export(first, each.SerializeToString())
        export(first, full_request().SerializeToString())

        exported = run_to_end("export", file, "--url", first.url)
        assert exported.returncode == 0, exported.stderr
        for _ in range(2):  # a second time changes nothing
            imported = run_to_end("import", file, "--endpoint", second.otlp_url)
            assert imported.returncode == 0, imported.stderr
            assert imported.stderr.startswith("Importing")
            stored = all_traces(first)
            assert len(stored) > 20
            assert all_traces(second) == stored


@pytest.fixture(scope="module")
def stocked(service: RunningProcess) -> RunningProcess:
    """A service with 2,500 traces of two spans."""
    for first in range(0, 2_500, 250):
        spans = [
            span(f"{number}{which}", trace_id=trace_id_of(f"stock {number}"))
            for number in range(first, first + 250)
            for which in "ab"
        ]
        export(service, request(*spans).SerializeToString())
    return service


STOCK = sorted(f"{number}{which}" for number in range(2_500) for which in "ab")


def names_in(path: Path) -> list[str]:
    """The names of all spans of a file of JSON lines, sorted."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    batches = map(decode_export_json, content.splitlines())
    return sorted(row[15] for batch in batches for row in batch.spans)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_traces, "RETRY_DELAYS_S", (0.01,))


@pytest.mark.parametrize("name", ["traces.jsonl", "traces.jsonl.gz"])
def test_an_export_that_broke_off_goes_on_without_gap_or_repetition(
    stocked: RunningProcess, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    with http_proxy(stocked.ports.query) as proxy:
        arguments = ["export", str(path), "--url", proxy.url]
        proxy.whole = 3  # the sums, and two pages
        broken = CliRunner().invoke(main, arguments)
        assert broken.exit_code == 1
        assert f"`msgtrace export {path} --resume` goes on where this stopped." in broken.output
        assert not path.exists()
        first_pages = len(proxy.passed)

        again = CliRunner().invoke(main, arguments)
        assert "--resume goes on with it, --overwrite begins anew" in again.output
        other = CliRunner().invoke(main, [*arguments, "--resume", "--name", "1a"])
        assert other.exit_code == 2

        proxy.whole = None
        resumed = CliRunner().invoke(main, [*arguments, "--resume"])

    assert resumed.exit_code == 0, resumed.output
    assert first_pages == 3
    assert names_in(path) == STOCK
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_service_that_was_away_for_a_moment_is_asked_again(
    stocked: RunningProcess, tmp_path: Path
) -> None:
    path = tmp_path / "traces.jsonl"
    with http_proxy(stocked.ports.query) as proxy:
        proxy.whole = 2

        def come_back(_: float) -> None:
            proxy.whole = None

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("msgtrace.cli.export_traces.time.sleep", come_back)
            done = CliRunner().invoke(main, ["export", str(path), "--url", proxy.url])

    assert done.exit_code == 0, done.output
    assert names_in(path) == STOCK


def test_an_export_that_was_killed_goes_on(stocked: RunningProcess, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    state = tmp_path / "traces.jsonl.part.json"
    command = [sys.executable, "-m", "msgtrace", "export", str(path), "--url", stocked.url]
    with subprocess.Popen(
        command, cwd=ROOT, env=child_environment({}), stderr=subprocess.PIPE
    ) as process:
        wait_until(state.exists, "the first page")
        process.send_signal(signal.SIGKILL)
    assert not path.exists()

    resumed = run_to_end("export", str(path), "--url", stocked.url, "--resume")

    assert resumed.returncode == 0, resumed.stderr
    assert names_in(path) == STOCK


def test_an_export_is_filtered_like_the_list_and_tells_what_it_wrote(
    stocked: RunningProcess, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"

    done = run_to_end("export", str(path), "--url", stocked.url, "--name", "17a", "--json")

    assert names_in(path) == ["17a", "17b"]
    said = json.loads(done.stdout)
    assert said == {"file": str(path), "traces": 1, "spans": 2, "bytes": path.stat().st_size}


def test_an_export_to_standard_output_is_nothing_but_requests(stocked: RunningProcess) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "msgtrace", "export", "-", "--url", stocked.url),
            *("--name", "17a", "--format", "protobuf"),
        ],
        cwd=ROOT,
        env=child_environment({}),
        capture_output=True,
        timeout=20,
        check=True,
    )

    length = int.from_bytes(done.stdout[:4], "big")
    assert length == len(done.stdout) - 4
    names = [row[15] for row in decode_export_request(done.stdout[4:]).spans]
    assert sorted(names) == ["17a", "17b"]


def test_a_file_that_is_there_is_not_written_over(stocked: RunningProcess, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("precious")
    arguments = ["export", str(path), "--url", stocked.url, "--name", "17a"]

    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, path.read_text()) == (1, "precious")
    assert f"{path} exists: --overwrite begins anew" in refused.output

    CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert names_in(path) == ["17a", "17b"]


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "msgtrace" / "imports"


def test_an_import_that_stopped_goes_on_behind_what_was_acknowledged(
    service: RunningProcess, tmp_path: Path, data_folder: Path
) -> None:
    path = tmp_path / "many.binpb"
    bodies = [
        request(span(f"import {number}", trace_id=trace_id_of("import"))).SerializeToString()
        for number in range(60)
    ]
    path.write_bytes(b"".join(len(body).to_bytes(4, "big") + body for body in bodies))
    with http_proxy(service.ports.http) as proxy:
        arguments = ["import", str(path), "--endpoint", proxy.url, "--timeout", "0.5"]
        proxy.whole = 30
        stopped = CliRunner().invoke(main, arguments)
        assert stopped.exit_code == 1
        assert f"{proxy.url} took no request within 0.5 s" in stopped.output
        assert "the same command with --resume goes on there." in stopped.output
        before = len(proxy.passed)
        assert len(list(data_folder.iterdir())) == 1

        proxy.whole = None
        resumed = CliRunner().invoke(main, [*arguments, "--resume"])

    assert resumed.exit_code == 0, resumed.output
    assert len(proxy.passed) - before < 45
    stored = service.get_trace(trace_id_of("import"))["spans"]
    assert Counter(each["name"] for each in stored) == Counter(f"import {n}" for n in range(60))
    assert list(data_folder.iterdir()) == []


def test_bad_requests_are_told_of_and_cost_no_other(
    service: RunningProcess, tmp_path: Path
) -> None:
    good = json.dumps(
        {
            "resourceSpans": [
                {
                    "scopeSpans": [
                        {
                            "spans": [
                                {"traceId": "ab" * 16, "spanId": "01" * 8, "name": "good"},
                                {"traceId": "", "spanId": "02" * 8},
                            ]
                        }
                    ]
                }
            ]
        }
    )
    lines = tmp_path / "lines.jsonl"
    lines.write_text(f'{{}}\n{{"resourceSpans": 7}}\n{good}\nnonsense\n')
    cut = tmp_path / "cut.binpb"
    body = request(span("kept", trace_id=bytes.fromhex("ab" * 16))).SerializeToString()
    cut.write_bytes(len(body).to_bytes(4, "big") + body + b"\0\0\1\0half")

    done = run_to_end("import", str(lines), str(cut), "--endpoint", service.otlp_url)

    assert done.returncode == 1
    assert done.stdout == "Imported 3 requests.\n"
    told = [line for line in done.stderr.splitlines() if "," in line]
    assert told[0].startswith(f"{lines}, line 2: the body is not OTLP/JSON: Expected `array")
    assert told[1] == (
        f"{lines}, line 3: 1 span left out: 1 span: trace_id is not 16 bytes or is all zero"
    )
    assert told[2] == f"{lines}, line 4: the body is not OTLP/JSON"
    assert told[3] == f"{cut}, record 2: the file ends within it"
    assert "Left out 3 bad requests and 1 rejected span." in done.stderr
    stored = service.get_trace("ab" * 16)["spans"]
    assert {each["name"] for each in stored} == {"good", "kept"}


def test_an_import_where_nothing_takes_otlp_says_so(
    service: RunningProcess, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text("{}\n")

    wrong = run_to_end("import", str(path), "--endpoint", f"{service.otlp_url}/nowhere")
    absent = run_to_end("import", str(path), "--endpoint", "127.0.0.1:1", "--timeout", "0.1")

    assert wrong.returncode == absent.returncode == 1
    assert "answered 404 Not Found: no collector takes OTLP/HTTP there" in wrong.stderr
    assert "http://127.0.0.1:1 took no request within 0.1 s (Connection refused)" in absent.stderr


def test_an_import_from_standard_input(service: RunningProcess) -> None:
    body = request(span("piped", trace_id=trace_id_of("pipe"))).SerializeToString()

    done = CliRunner().invoke(
        main, ["import", "-", "--endpoint", service.otlp_url, "--json"], input=body
    )

    assert json.loads(done.stdout)["imported_requests"] == 1
    assert [each["name"] for each in service.get_trace(trace_id_of("pipe"))["spans"]] == ["piped"]
