"""The commands as people run them, against the real service and its database."""

from __future__ import annotations

import json
import os
import pty
import re
import secrets
import subprocess
from typing import Any

import pytest

from tests.batches import NOON_NS, request, span
from tests.end_to_end.processes import RunningProcess, free_ports, run_to_end
from tests.end_to_end.senders import export

MS = 1_000_000


@pytest.fixture
def shop(service: RunningProcess) -> str:
    """The id of a trace: a root, two children of which one failed, a grandchild, an orphan."""
    trace_id = secrets.token_bytes(16)
    export(
        service,
        request(
            span("GET /cart", trace_id=trace_id, duration_ns=100 * MS),
            span("load", trace_id=trace_id, parent="GET /cart", start_ns=NOON_NS + 10 * MS),
            span("query", trace_id=trace_id, parent="load", start_ns=NOON_NS + 11 * MS),
            span(
                "pay",
                trace_id=trace_id,
                parent="GET /cart",
                start_ns=NOON_NS + 50 * MS,
                status_code=2,
                status_message="card \x1b[31m declined",
            ),
            span("lost", trace_id=trace_id, parent="absent", start_ns=NOON_NS + 60 * MS),
            service=trace_id.hex(),
        ).SerializeToString(),
    )
    return trace_id.hex()


def run(
    service: RunningProcess, *arguments: str, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    return run_to_end(*arguments, "--url", service.url, stdin=stdin)


def must_run(service: RunningProcess, *arguments: str) -> str:
    done = run(service, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def admin(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"MSGTRACE_DATABASE_URL": database_url}
    return run_to_end(*arguments, environment=environment, program="msgtrace-admin")


def answer(
    service: RunningProcess, reply: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with somebody at its terminal who types `reply`."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, reply.encode() + b"\n")
        return run(service, *arguments, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def stored_count(service: RunningProcess, service_name: str) -> int:
    total = service.get("/api/v1/traces", service_name=service_name)["total"]
    assert isinstance(total, int)
    return total


def test_list_prints_a_table_of_traces(service: RunningProcess, shop: str) -> None:
    lines = must_run(service, "list", "--service", shop).splitlines()

    assert lines[0].split() == ["Start", "Trace", "Root", "span", "Service", *lines[0].split()[5:]]
    assert shop in lines[1]
    assert "GET /cart" in lines[1]
    assert re.search(r"100 ms\s+5\s+1$", lines[1].rstrip())
    assert lines[2] == "1 of 1 trace"


def test_list_as_json_is_the_reply_of_the_api(service: RunningProcess, shop: str) -> None:
    printed = json.loads(must_run(service, "list", "--service", shop, "--json"))

    assert printed == service.get("/api/v1/traces", service_name=shop)
    assert [trace["trace_id"] for trace in printed["traces"]] == [shop]


def test_list_pages_through_all_traces(service: RunningProcess, shop: str) -> None:
    for _ in range(4):
        body = request(span(trace_id=secrets.token_bytes(16)), service=f"{shop} paged")
        export(service, body.SerializeToString())
    arguments = ["list", "--service", f"{shop} paged", "--limit", "3", "--json"]

    first = json.loads(must_run(service, *arguments))
    second = json.loads(must_run(service, *arguments, "--cursor", first["next_cursor"]))

    assert [len(page["traces"]) for page in (first, second)] == [3, 1]
    assert second["next_cursor"] is None
    assert len({each["trace_id"] for page in (first, second) for each in page["traces"]}) == 4


def test_show_prints_the_tree(service: RunningProcess, shop: str) -> None:
    facts, tree = must_run(service, "show", shop).split("\n\n")

    assert re.search(rf"^Trace\s+{shop}$", facts, re.MULTILINE)
    assert re.search(r"^Spans\s+5$", facts, re.MULTILINE)
    assert re.search(r"^Errors\s+1$", facts, re.MULTILINE)
    lines = tree.splitlines()
    assert len(lines) == 6
    assert re.match(rf"GET /cart  {shop} +100 ms  █", lines[0])
    assert re.match(r"├─ load +1 ms  ", lines[1])
    assert re.match(r"│  └─ query +1 ms  ", lines[2])
    assert re.match(r"└─ ✗ pay +1 ms  ", lines[3])
    assert re.fullmatch(r" +card \\x1b\[31m declined", lines[4])
    assert re.match(rf"\(orphan\) lost  {shop} +1 ms  ", lines[5])


def test_show_as_json_is_the_tree_of_the_api(service: RunningProcess, shop: str) -> None:
    printed = json.loads(must_run(service, "show", shop, "--json"))

    assert printed == service.get(f"/api/v1/traces/{shop}/tree")

    def shape(nodes: list[dict[str, Any]]) -> list[Any]:
        return [(node["span"]["name"], node["relation"], shape(node["children"])) for node in nodes]

    assert shape(printed["roots"]) == [
        (
            "GET /cart",
            "root",
            [("load", "child", [("query", "child", [])]), ("pay", "child", [])],
        ),
        ("lost", "orphan", []),
    ]


def test_stats_sums_up(service: RunningProcess, shop: str) -> None:
    lines = must_run(service, "stats", "--service", shop).splitlines()

    assert re.fullmatch(r"Traces\s+1\s+1 with errors \(100\.0%\)", lines[0])
    assert re.fullmatch(r"Spans\s+5\s+1 error", lines[1])
    assert json.loads(must_run(service, "stats", "--json")) == service.get("/api/v1/stats")


def test_show_of_an_absent_trace_is_one_sentence(service: RunningProcess) -> None:
    done = run(service, "show", "ab" * 16)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: trace {'ab' * 16} not found\n"


def test_clear_without_a_terminal_deletes_nothing(service: RunningProcess, shop: str) -> None:
    done = run(service, "clear", "--service", shop)

    assert (done.returncode, done.stdout) == (1, "")
    assert "--yes" in done.stderr
    assert stored_count(service, shop) == 1


def test_clear_asks_and_a_no_deletes_nothing(service: RunningProcess, shop: str) -> None:
    done = answer(service, "n", "clear", "--service", shop)

    assert done.returncode == 1
    assert "Delete 1 matching trace" in done.stdout + done.stderr
    assert "Nothing deleted." in done.stderr
    assert stored_count(service, shop) == 1


def test_clear_deletes_after_a_yes(service: RunningProcess, shop: str) -> None:
    done = answer(service, "y", "clear", "--service", shop)

    assert done.returncode == 0
    assert "Deleted 1 trace." in done.stdout
    assert stored_count(service, shop) == 0


def test_clear_with_yes_deletes_what_matches_and_nothing_else(
    service: RunningProcess, shop: str
) -> None:
    body = request(span(trace_id=secrets.token_bytes(16)), service=f"{shop} stays")
    export(service, body.SerializeToString())

    assert must_run(service, "clear", "--service", shop, "--yes") == "Deleted 1 trace.\n"

    assert stored_count(service, shop) == 0
    assert stored_count(service, f"{shop} stays") == 1


def test_clear_of_everything_leaves_an_empty_database(service: RunningProcess, shop: str) -> None:
    before = service.get("/api/v1/stats")["total_traces"]

    assert json.loads(must_run(service, "clear", "--yes", "--json")) == {"deleted": before}

    assert service.get("/api/v1/stats")["total_spans"] == 0
    assert "No traces yet." in must_run(service, "list")


def test_a_trace_that_the_api_deletes_is_gone_and_may_come_again(
    service: RunningProcess, shop: str
) -> None:
    path = f"/api/v1/traces/{shop}"

    assert service.client.delete(path).status_code == 204

    assert service.client.get(path).status_code == 404
    assert service.client.delete(path).status_code == 404
    body = request(span(trace_id=bytes.fromhex(shop))).SerializeToString()
    export(service, body)
    assert service.get_trace(shop)["span_count"] == 1


def test_an_absent_service_is_one_sentence() -> None:
    [port] = free_ports(1)
    for arguments in (["list"], ["show", "ab" * 16], ["stats", "--json"], ["clear", "--yes"]):
        done = run_to_end(*arguments, environment={"MSGTRACE_PORT": str(port)})

        assert (done.returncode, done.stdout) == (1, "")
        [sentence] = done.stderr.splitlines()
        assert f"no msgtrace query service at http://127.0.0.1:{port}" in sentence


def test_settings_shows_values_with_their_sources() -> None:
    environment = {
        "MSGTRACE_DATABASE_URL": "postgresql://me:secret@db/traces",
        "MSGTRACE_PROT": "4321",
    }

    done = run_to_end("settings", "--port", "5000", "--json", environment=environment)

    assert done.returncode == 0
    rows = {row["variable"]: row for row in json.loads(done.stdout)}
    assert (rows["MSGTRACE_PORT"]["value"], rows["MSGTRACE_PORT"]["source"]) == ("5000", "flag")
    assert rows["MSGTRACE_DATABASE_URL"]["value"] == "postgresql://me:***@db/traces"
    assert rows["MSGTRACE_DATABASE_URL"]["source"] == "environment"
    assert rows["MSGTRACE_HTTP_PORT"]["source"] == "default"
    assert "did you mean MSGTRACE_PORT?" in done.stderr


@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres])]
)
def test_admin_migrates_an_empty_database_once(
    backend: str, request: pytest.FixtureRequest
) -> None:
    fixture = "sqlite_url" if backend == "sqlite" else "empty_postgres_url"
    database_url = request.getfixturevalue(fixture)

    before = admin(database_url, "status")
    first, second = admin(database_url, "migrate"), admin(database_url, "migrate")
    after = admin(database_url, "status", "--json")

    assert before.returncode == 1
    assert "msgtrace-admin migrate" in before.stderr
    assert first.stdout.startswith("applied 0001_")
    assert second.stdout == "The schema is up to date.\n"
    status = json.loads(after.stdout)
    assert status["backend"] == backend
    assert status["schema_version"] == len(first.stdout.splitlines())
    assert (status["trace_count"], status["span_count"]) == (0, 0)


def test_admin_status_counts_beside_a_running_service(
    service: RunningProcess, shared_database_url: str, shop: str
) -> None:
    stats = service.get("/api/v1/stats")

    done = admin(shared_database_url, "status")

    assert done.returncode == 0
    assert re.search(rf"^Traces\s+{stats['total_traces']}$", done.stdout, re.MULTILINE)
    assert re.search(rf"^Spans\s+{stats['total_spans']}$", done.stdout, re.MULTILINE)
