"""An agent's run through the running programs: what was said stays where it may be."""

from __future__ import annotations

import secrets
from pathlib import Path

import httpx
import pytest

from tests.batches import request, span
from tests.end_to_end.captured import read
from tests.end_to_end.processes import free_ports, run_to_end, running
from tests.end_to_end.senders import export, post

SECRET = "what nobody but the model may read"


def everything_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def a_request() -> bytes:
    said = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": SECRET, "user.id": "ana"}
    trace_id = secrets.token_bytes(16)
    return request(span("chat", trace_id=trace_id, attributes=said)).SerializeToString()


def redacting(tmp_path: Path) -> dict[str, str]:
    key_file = tmp_path / "redact.key"
    key_file.write_text(secrets.token_hex(16))
    return {
        "MSGTRACE_REDACT": "drop *.messages, hash user.id",
        "MSGTRACE_REDACT_KEY_FILE": str(key_file),
    }


def test_redacted_values_are_nowhere_on_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running("start", f"sqlite:///{data / 'x.db'}", environment=redacting(tmp_path)) as service:
        export(service, a_request())
        export(service, a_request(), "grpc")
        page = service.get("/api/v1/traces")
        metrics = httpx.get(f"{service.otlp_url}/metrics", trust_env=False).text

    assert page["total"] == 2
    assert {each["user_id"][:12] for each in page["traces"]} == {"hmac-sha256:"}
    assert len({each["user_id"] for each in page["traces"]}) == 1
    assert SECRET.encode() not in everything_under(data)
    assert b"[redacted]" in everything_under(data)
    assert SECRET not in service.stderr + service.stdout
    assert 'msgtrace_values_redacted_total{action="drop"} 2.0' in metrics
    assert 'msgtrace_values_redacted_total{action="hash"} 2.0' in metrics


@pytest.mark.postgres
def test_redacted_values_are_not_in_the_spill_either(tmp_path: Path) -> None:
    [port] = free_ports(1)  # where no database listens
    spill = tmp_path / "spill"
    environment = redacting(tmp_path) | {"MSGTRACE_SPILL_DIR": str(spill)}
    with running("collector", f"postgresql://127.0.0.1:{port}/x", environment=environment) as it:
        assert post(f"{it.otlp_url}/v1/traces", a_request()).status_code == 200
        spilled = everything_under(spill)

    assert b"[redacted]" in spilled
    assert SECRET.encode() not in spilled


def test_what_people_wrote_is_in_no_list_log_error_or_metric(tmp_path: Path) -> None:
    with running("start", f"sqlite:///{tmp_path / 'x.db'}") as service:
        export(service, a_request())
        malformed = post(f"{service.otlp_url}/v1/traces", a_request() + SECRET.encode())
        shown = [
            httpx.get(f"{base}{path}", trust_env=False).text
            for base, path in (
                (service.url, "/api/v1/traces"),
                (service.url, "/api/v1/traces?q=model"),
                (service.url, "/api/v1/sessions"),
                (service.url, "/api/v1/stats"),
                (service.url, "/metrics"),
                (service.otlp_url, "/metrics"),
            )
        ]

    assert malformed.status_code == 400
    assert SECRET not in "".join([malformed.text, *shown, service.stderr, service.stdout])


def test_a_person_sees_an_agents_turn_and_its_sums_rebuilt(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    prices = tmp_path / "prices.toml"
    prices.write_text('[models."gpt-5-mini"]\ninput = 1\noutput = 1\ncached_input = 1\n')
    with running("start", url) as service:
        export(service, read("msgflux-stock-1.binpb")[0])
        export(service, read("msgflux-agent-1.binpb")[0])
        shown = run_to_end("sessions", "sess-7", "--url", service.url)
        environment = {"MSGTRACE_DATABASE_URL": url, "MSGTRACE_PRICES_FILE": str(prices)}
        rebuilt = run_to_end(
            "rebuild-summaries", "--all", environment=environment, program="msgtrace-admin"
        )
        again = run_to_end("rebuild-summaries", environment=environment, program="msgtrace-admin")
        page = service.get("/api/v1/traces", model="gpt-5-mini-2025-08-07")

    assert "Tokens    600 in (320 cached), 155 out (40 reasoning)" in shown.stdout
    assert "Cost      0.00043" in shown.stdout
    assert "trip_planner" in shown.stdout
    assert rebuilt.stdout.endswith("Rebuilt 10 traces.\n")
    assert again.stdout.endswith("All traces are up to date.\n")
    # The turn's cost was sent; the lone calls of 120 and 31 tokens cost 151 millionths now.
    assert sorted(round(each["cost"], 6) for each in page["traces"]) == [
        0.000151,
        0.000151,
        0.00043,
    ]
