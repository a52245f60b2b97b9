"""`msgtrace ready` is a health check that fits whichever service the machine runs."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.cli.conftest import Run

NOT_READY = b'{"status": "not ready", "reasons": ["the database does not answer"]}'


@pytest.fixture(autouse=True)
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Nothing listens on the ports of the settings, unless a test starts it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    for name in ("MSGTRACE_PORT", "MSGTRACE_HTTP_PORT"):
        monkeypatch.setenv(name, str(port))
    return port


@contextlib.contextmanager
def service(
    status: int = 200, body: bytes = b"{}", context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A service that answers every question so; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("variable", ["MSGTRACE_PORT", "MSGTRACE_HTTP_PORT"])
def test_a_machine_with_one_ready_service_is_ready(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("MSGTRACE_HOST", "0.0.0.0")
    with service() as port:
        monkeypatch.setenv(variable, port)
        result = run("ready")

    assert result.exit_code == 0
    assert result.output.startswith("ready: ")


def test_a_machine_without_a_service_is_not_ready(run: Run, free_port: int) -> None:
    result = run("ready")

    assert result.exit_code == 1
    assert result.output == f"Error: nothing listens on port {free_port} or {free_port}\n"


def test_one_service_that_is_not_ready_is_told_with_its_reasons(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service() as query, service(503, NOT_READY) as collector:
        monkeypatch.setenv("MSGTRACE_PORT", query)
        monkeypatch.setenv("MSGTRACE_HTTP_PORT", collector)
        result = run("ready")

    assert result.exit_code == 1
    assert result.output == "Error: collector: the database does not answer\n"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"reasons": 7}', b"\xff"])
def test_an_answer_that_is_not_ours_is_not_ready(
    run: Run, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    with service(502, body) as port:
        monkeypatch.setenv("MSGTRACE_PORT", port)
        result = run("ready")

    assert result.exit_code == 1
    assert result.output == "Error: query service: status 502\n"


@pytest.mark.parametrize("is_mutual", [False, True])
def test_the_check_speaks_tls_where_the_service_does(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_mutual: bool
) -> None:
    authority = Authority("CA")
    files = authority.issue("server").write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    monkeypatch.setenv("MSGTRACE_TLS_CERT_FILE", str(files.certificate))
    monkeypatch.setenv("MSGTRACE_TLS_KEY_FILE", str(files.key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if is_mutual:
        monkeypatch.setenv("MSGTRACE_TLS_CLIENT_CA_FILE", str(tmp_path / "ca.crt"))
        context.load_verify_locations(tmp_path / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    with service(context=context) as port:
        monkeypatch.setenv("MSGTRACE_PORT", port)
        monkeypatch.setenv("MSGTRACE_HTTP_PORT", port)
        result = run("ready")

    assert result.exit_code == 0, result.output


def test_a_service_without_tls_where_tls_is_set_is_not_ready(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = Authority("CA").issue("server").write(tmp_path, "server")
    monkeypatch.setenv("MSGTRACE_TLS_CERT_FILE", str(files.certificate))
    monkeypatch.setenv("MSGTRACE_TLS_KEY_FILE", str(files.key))
    with service() as port:
        monkeypatch.setenv("MSGTRACE_PORT", port)
        result = run("ready")

    assert result.exit_code == 1
    assert "no answer" in result.output
