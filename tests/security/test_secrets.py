"""Neither a password nor what users sent shows where it does not belong, whatever fails."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import grpc
import pytest

from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, free_ports, run_to_end, running, wait_until
from tests.end_to_end.senders import EXPORT_METHOD, call_grpc, export, post
from tests.poison import POISON, poison_forbidden

PASSWORD = "hunter2/ä@?"
PROMPT = "my diagnosis is secret"

MALFORMED = b"\xff" * 8


def shown_of(process: RunningProcess) -> str:
    """Everything that a service tells without being asked for traces."""
    pages = [process.client.get(path).text for path in ("/metrics", "/ready", "/health")]
    return "\n".join([process.stdout, process.stderr, *pages])


def is_hidden(secret: str, text: str) -> bool:
    """Neither as it is, nor quoted, nor in part."""
    forms = (secret, quote(secret), quote(secret, safe=""), secret[:7])
    return not any(form in text for form in forms)


@pytest.fixture
def password_url() -> str:
    """A PostgreSQL that is not there."""
    [port] = free_ports(1)
    return f"postgresql://me:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/traces"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_password_shows_while_the_database_is_away(
    password_url: str, tmp_path: Path, log_format: str
) -> None:
    environment = {
        "MSGTRACE_SPILL_DIR": str(tmp_path / "spill"),
        "MSGTRACE_LOG_FORMAT": log_format,
        "MSGTRACE_LOG_LEVEL": "debug",
    }
    with running("collector", password_url, environment=environment) as process:
        export(process, request(span()).SerializeToString())
        wait_until(lambda: "database_unreachable" in process.stderr, "the log to say so")
        ready = post(f"{process.otlp_url}/v1/traces", MALFORMED).text
        spilled = run_to_end(
            "spill",
            "list",
            environment=environment | {"MSGTRACE_DATABASE_URL": password_url},
            program="msgtrace-admin",
        )

        assert is_hidden(PASSWORD, process.stdout + process.stderr + ready)
        assert is_hidden(PASSWORD, spilled.stdout + spilled.stderr)
        assert "spill-0" in spilled.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert all(PASSWORD.encode()[:7] not in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    "command",
    [
        ("msgtrace", "settings"),
        ("msgtrace", "settings", "--json"),
        ("msgtrace", "query", "--connect-timeout-s", "0.1"),
        ("msgtrace-admin", "status"),
        ("msgtrace-admin", "migrate"),
        ("msgtrace-admin", "dead-letters", "list"),
    ],
)
def test_no_command_prints_the_password(password_url: str, command: tuple[str, ...]) -> None:
    program, *arguments = command
    ended = run_to_end(
        *arguments,
        environment={
            "MSGTRACE_DATABASE_URL": password_url,
            "MSGTRACE_CONNECT_TIMEOUT_S": "0.1",
        },
        program=program,
    )

    shown = ended.stdout + ended.stderr
    assert "127.0.0.1" in shown, "the command says which database it means"
    assert is_hidden(PASSWORD, shown)


@pytest.mark.postgres
def test_no_password_shows_when_the_database_refuses_it(postgres_url: str, tmp_path: Path) -> None:
    """The user is not known to the server, whatever that server thinks of passwords."""
    parts = urlsplit(postgres_url)
    host = parts.netloc.rpartition("@")[2]
    stranger = f"nobody_{secrets.token_hex(4)}:{quote(PASSWORD, safe='')}"
    url = urlunsplit(parts._replace(netloc=f"{stranger}@{host}"))
    ended = run_to_end(
        "collector",
        environment={"MSGTRACE_DATABASE_URL": url, "MSGTRACE_SPILL_DIR": str(tmp_path)},
    )

    assert ended.returncode != 0
    assert "nobody_" in ended.stderr
    assert is_hidden(PASSWORD, ended.stdout + ended.stderr)


@pytest.fixture
def chatty(service: RunningProcess, shared_database_url: str) -> RunningProcess:
    """A service to which something happened with a prompt in each place of a span."""
    telling = span(
        PROMPT,
        trace_id=secrets.token_bytes(16),
        attributes={PROMPT: PROMPT, "gen_ai.prompt": PROMPT},
        status_code=2,
        status_message=PROMPT,
        trace_state=PROMPT,
    )
    telling.events.add(name=PROMPT)
    without_id = span(PROMPT, span_id=b"", attributes={"gen_ai.prompt": PROMPT})
    refused = span(POISON, span_id=secrets.token_bytes(8), attributes={"gen_ai.prompt": PROMPT})
    with poison_forbidden(shared_database_url):
        export(service, request(telling, service=PROMPT).SerializeToString())
        for wire in ("http", "grpc"):
            answer = export(service, request(without_id, refused).SerializeToString(), wire)
            assert answer.partial_success.rejected_spans == 2
            assert PROMPT not in answer.partial_success.error_message
    return service


def test_no_prompt_shows_in_logs_metrics_or_errors(chatty: RunningProcess) -> None:
    torn = request(span(PROMPT)).SerializeToString()[:-3]
    url = f"{chatty.otlp_url}/v1/traces"
    answers = [
        post(url, torn).content,
        post(url, torn, content_encoding="gzip").content,
        post(url, f'{{"a": "{PROMPT}', content_type="application/json").content,
        chatty.client.get("/api/v1/traces", params={"cursor": PROMPT}).content,
    ]
    with pytest.raises(grpc.RpcError) as refusal:
        call_grpc(chatty.grpc_target, torn, method=EXPORT_METHOD)

    assert all(PROMPT.encode() not in answer for answer in answers)
    assert PROMPT not in str(refusal.value)
    assert PROMPT not in shown_of(chatty)


def test_no_prompt_shows_in_the_list_but_where_it_is_a_name(chatty: RunningProcess) -> None:
    prompt = f"prompt {secrets.token_hex(4)}"
    asked = span(
        "chat", trace_id=secrets.token_bytes(16), attributes={"gen_ai.input.messages": prompt}
    )
    export(chatty, request(asked).SerializeToString())

    for path in ("/api/v1/traces", "/api/v1/stats", "/api/v1/services"):
        assert prompt not in chatty.client.get(path).text
    assert prompt in chatty.client.get(f"/api/v1/traces/{asked.trace_id.hex()}").text
