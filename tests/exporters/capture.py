"""What the senders send, byte by byte, for machines without their toolchains.

`python -m tests.exporters.capture` runs every sender against a sink on loopback and writes
tests/fixtures/exporters anew; `python -m tests.exporters.capture go java` renews two languages.
Bodies over HTTP are kept as they were sent, compressed or not. gRPC hands them over inflated.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from tests.exporters.senders import CASES, Case, Senders

FOLDER = Path(__file__).parents[1] / "fixtures" / "exporters"
MANIFEST = FOLDER / "manifest.json"

LEFT_OUT = {"host"}
"""Headers that say where the sink was."""


@dataclass(frozen=True, kw_only=True)
class Captured:
    """One request. headers: names in lower case; over gRPC its metadata."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def file_name(case: Case) -> str:
    """Where the body of a case is kept."""
    suffix = ".json" if case.wire == "http-json" else ".binpb"
    is_compressed = case.compression == "gzip" and not case.is_grpc
    return f"{case}{suffix}{'.gz' if is_compressed else ''}"


@contextlib.contextmanager
def sink(*, is_grpc: bool) -> Iterator[tuple[str, list[Captured]]]:
    """An endpoint that takes every request for success, and the list of what it was sent."""
    with _grpc_sink() if is_grpc else _http_sink() as opened:
        yield opened


def capture(senders: Senders, case: Case) -> tuple[Captured, dict[str, Any]]:
    """The one request of a case, and what the manifest says about it."""
    sender = senders.get(case.language)
    service_name, remote_trace_id = f"captured-{case}", secrets.token_hex(16)
    with sink(is_grpc=case.is_grpc) as (endpoint, requests):
        report = sender.run(
            *(case, "every-field", endpoint),
            service_name=service_name,
            remote_trace_id=remote_trace_id,
        )
    assert report.is_success, report.error
    (captured,) = requests
    return captured, {
        "path": captured.path,
        "headers": captured.headers,
        "toolchain": sender.toolchain,
        "service_name": service_name,
        "remote_trace_id": remote_trace_id,
        "spans": report.spans,
    }


def main(languages: list[str]) -> None:
    """Write the bodies and the manifest."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        senders = Senders(Path(folder))
        for case in CASES:
            if not languages or case.language in languages:
                captured, about = capture(senders, case)
                (FOLDER / file_name(case)).write_bytes(captured.body)
                manifest[file_name(case)] = about
    MANIFEST.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def _http_sink() -> Iterator[tuple[str, list[Captured]]]:
    requests: list[Captured] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = _kept(self.headers.items())
            body = self._read_chunks() if "transfer-encoding" in headers else self._read()
            requests.append(Captured(path=self.path, headers=headers, body=body))
            self.send_response(200)
            self.send_header("content-type", headers["content-type"])
            reply = b"{}" if headers["content-type"] == "application/json" else b""
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def _read(self) -> bytes:
            return self.rfile.read(int(self.headers["content-length"]))

        def _read_chunks(self) -> bytes:
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", requests
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def _grpc_sink() -> Iterator[tuple[str, list[Captured]]]:
    requests: list[Captured] = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            def take(body: bytes, context: grpc.ServicerContext) -> bytes:
                headers = _kept(context.invocation_metadata())
                requests.append(Captured(path=details.method, headers=headers, body=body))
                return b""

            return grpc.unary_unary_rpc_method_handler(take)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", requests
    finally:
        server.stop(None).wait()


def _kept(pairs: Any) -> dict[str, str]:
    headers = {name.lower(): value for name, value in pairs}
    return {name: headers[name] for name in sorted(headers.keys() - LEFT_OUT)}


if __name__ == "__main__":
    main(sys.argv[1:])
