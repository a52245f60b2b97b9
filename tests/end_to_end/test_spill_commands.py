"""`msgtrace-admin spill`: what an ended collector left on disk is seen, exported and stored."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, run_to_end, running
from tests.end_to_end.senders import PROTOBUF
from tests.faults.private_postgres import PrivatePostgres, private_postgres

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """A server that is down when a test begins, with an empty database."""
    with private_postgres() as running_server:
        running_server.execute("CREATE DATABASE spill")
        running_server.stop("fast")
        yield running_server


@pytest.fixture
def environment(server: PrivatePostgres, tmp_path: Path) -> dict[str, str]:
    return {
        "MSGTRACE_DATABASE_URL": server.url("spill"),
        "MSGTRACE_SPILL_DIR": str(tmp_path / "spill"),
    }


def export(collector: RunningProcess, body: bytes) -> None:
    url = f"{collector.otlp_url}/v1/traces"
    answer = httpx.post(url, content=body, headers=PROTOBUF, trust_env=False, timeout=30)
    assert answer.status_code == 200


def admin(environment: dict[str, str], *arguments: str) -> str:
    ended = run_to_end("spill", *arguments, environment=environment, program="msgtrace-admin")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_what_an_ended_collector_left_is_listed_exported_and_stored(
    server: PrivatePostgres, environment: dict[str, str], tmp_path: Path
) -> None:
    trace_id = secrets.token_bytes(16)
    bodies = [
        request(span(f"step {number}", trace_id=trace_id)).SerializeToString()
        for number in range(3)
    ]
    assert "No spill" in admin(environment, "list")
    url = environment["MSGTRACE_DATABASE_URL"]
    with running("collector", url, environment=environment) as collector:
        for body in bodies:
            export(collector, body)
        [in_use] = json.loads(admin(environment, "list", "--json"))
        assert in_use["is_in_use"]
        collector.kill()

    [left] = json.loads(admin(environment, "list", "--json"))
    size = sum(map(len, bodies))
    assert not left["is_in_use"]
    assert left["is_of_this_database"]
    assert (left["requests"], left["set_aside"], left["bytes"]) == (3, 0, size)
    assert "spill-0.db" in admin(environment, "list")

    admin(environment, "export", str(tmp_path / "out"))
    exported = sorted((tmp_path / "out").iterdir())
    assert [path.read_bytes() for path in exported] == bodies
    assert {path.stat().st_mode & 0o777 for path in exported} == {0o600}

    away = run_to_end(
        "spill",
        *("drain", "--connect-timeout-s", "0.1"),
        environment=environment,
        program="msgtrace-admin",
    )
    assert away.returncode == 1
    assert away.stderr.startswith("Error: cannot reach")
    server.start()
    assert "Stored 3 requests." in admin(environment, "drain")
    assert server.fetch("SELECT count(*) FROM spans", database="spill") == [(3,)]
    assert [row["requests"] for row in json.loads(admin(environment, "list", "--json"))] == [0]


def test_a_request_that_cannot_be_stored_is_reported_and_kept(
    server: PrivatePostgres, environment: dict[str, str]
) -> None:
    server.ensure_running()
    url = environment["MSGTRACE_DATABASE_URL"]
    with running("collector", url, environment=environment) as collector:
        server.stop("fast")
        export(collector, request(span("kept")).SerializeToString())
        collector.kill()
    _damage_payloads(environment)
    server.start()

    drained = run_to_end("spill", "drain", environment=environment, program="msgtrace-admin")

    assert drained.returncode == 1
    assert "1 request cannot be stored" in drained.stderr
    [row] = json.loads(admin(environment, "list", "--json"))
    assert (row["requests"], row["set_aside"]) == (0, 1)


def _damage_payloads(environment: dict[str, str]) -> None:
    [path] = Path(environment["MSGTRACE_SPILL_DIR"]).glob("*/spill-0.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE requests SET payload = x'ff'")
        connection.commit()
