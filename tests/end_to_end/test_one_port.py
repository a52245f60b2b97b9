"""`msgtrace start` as a program starts it for itself: one port, and no longer than its parent."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.batches import request, span
from tests.end_to_end.processes import (
    RunningProcess,
    can_connect,
    run_to_end,
    running,
    wait_until,
)
from tests.end_to_end.senders import post
from tests.end_to_end.test_stop import let_exports_arrive

FLAGS = ("--one-port", "--until-stdin-closes")


def one_span(trace_id: bytes) -> bytes:
    return request(span(trace_id=trace_id)).SerializeToString()


def close_stdin(service: RunningProcess) -> None:
    """What the end of the parent does."""
    assert service.popen.stdin is not None
    service.popen.stdin.close()


@pytest.mark.parametrize("path", ["/v1/traces", "/api/v1/traces/export"])
def test_one_port_takes_traces_and_answers_for_them(sqlite_url: str, path: str) -> None:
    trace_id = secrets.token_bytes(16)
    with running("start", sqlite_url, "--one-port") as service:
        assert not can_connect(service.ports.grpc)
        assert not can_connect(service.ports.http)
        assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{service.ports.query}" in (
            service.stderr
        )

        assert post(f"{service.url}{path}", one_span(trace_id)).status_code == 200

        assert service.get_trace(trace_id)["span_count"] == 1
        assert service.get("/ready") == {"status": "ready"}


def test_it_answers_and_writes_what_it_has_read_once_its_parent_is_gone(tmp_path: Path) -> None:
    path, trace_id = tmp_path / "traces.db", secrets.token_bytes(16)
    answers: list[httpx.Response] = []
    with (
        running("start", f"sqlite:///{path}", *FLAGS, stdin=subprocess.PIPE) as service,
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
    ):
        assert service.get("/ready") == {"status": "ready", "ends_with_parent": True}
        connection.execute("BEGIN IMMEDIATE")
        sender = threading.Thread(
            target=lambda: answers.append(post(f"{service.url}/v1/traces", one_span(trace_id)))
        )
        sender.start()
        let_exports_arrive(service)
        close_stdin(service)
        wait_until(lambda: not can_connect(service.ports.query), "the port to close")
        connection.execute("ROLLBACK")
        sender.join(20)
        service.wait_for_stop()

        assert [answer.status_code for answer in answers] == [200]
        assert connection.execute("SELECT trace_id FROM spans").fetchall() == [(trace_id,)]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--reload", "--until-stdin-closes"), "--until-stdin-closes"),
        (("--workers", "2", "--until-stdin-closes"), "--until-stdin-closes"),
        (("--workers", "2", "--one-port"), "--one-port"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(flags: tuple[str, ...], named: str) -> None:
    done = run_to_end("start", *flags)

    assert done.returncode == 2
    assert f"{named} is for one process" in done.stderr
