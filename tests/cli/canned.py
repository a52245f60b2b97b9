"""A real HTTP server on loopback with prepared replies, and replies in the form of docs/api.md."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgtrace.model.units import rfc3339

TRACE_A = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE_B = "0af7651916cd43dd8448eb211c80319c"
START_NS = 1_772_366_400_000_000_000  # 2026-03-01T12:00:00Z
MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the server got."""

    method: str
    path: str
    parameters: list[tuple[str, str]]


@dataclass(slots=True)
class CannedServer:
    """Replies by (method, path). A value that is bytes is sent as it is, all else as JSON."""

    url: str = ""
    replies: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def reply(self, path: str, body: Any, *, status: int = 200, method: str = "GET") -> None:
        self.replies[method, path] = (status, body)

    def answer(self, method: str, target: str) -> tuple[int, bytes]:
        parts = urllib.parse.urlsplit(target)
        self.asked.append(Asked(method, parts.path, urllib.parse.parse_qsl(parts.query)))
        absent = (404, {"detail": f"{parts.path} not found"})
        status, body = self.replies.get((method, parts.path), absent)
        return status, body if isinstance(body, bytes) else json.dumps(body).encode()


@contextmanager
def canned_server() -> Iterator[CannedServer]:
    canned = CannedServer()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            status, body = canned.answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_DELETE = respond  # noqa: N815 - names given by http.server

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        canned.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield canned
        finally:
            server.shutdown()
            thread.join()


def summary(trace_id: str = TRACE_A, **changes: Any) -> dict[str, Any]:
    start_ns, end_ns = START_NS, START_NS + 12_500_000
    return {
        "trace_id": trace_id,
        "start_time": rfc3339(start_ns),
        "end_time": rfc3339(end_ns),
        "start_time_unix_nano": str(start_ns),
        "end_time_unix_nano": str(end_ns),
        "duration_ms": 12.5,
        "span_count": 3,
        "error_count": 0,
        "service_name": "shop",
        "services": ["shop", "stock"],
        "root_span_id": "00f067aa0ba902b7",
        "root_span_name": "GET /cart",
        "workflow_name": None,
        "session_id": None,
        "user_id": None,
        "models": [],
        "providers": [],
        "operations": [],
        "agents": [],
        "tools": [],
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": 0.0,
        "estimated_cost": 0.0,
    } | changes


def trace_list(*traces: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "traces": list(traces),
        "total": len(traces),
        "total_is_exact": True,
        "limit": 100,
        "offset": 0,
        "next_cursor": None,
    } | changes


def span(
    name: str = "GET /cart",
    *,
    at_ms: float = 0,
    lasts_ms: float = 1,
    service: str = "shop",
    error: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    start_ns = START_NS + round(at_ms * MS)
    end_ns = start_ns + round(lasts_ms * MS)
    return {
        "trace_id": TRACE_A,
        "span_id": "00f067aa0ba902b7",
        "parent_span_id": None,
        "name": name,
        "kind": "SERVER",
        "start_time_unix_nano": str(start_ns),
        "end_time_unix_nano": str(end_ns),
        "duration_ms": lasts_ms,
        "status": {
            "status_code": "UNSET" if error is None else "ERROR",
            "description": error or "",
        },
        "service_name": service,
    } | fields


def node(
    sent: dict[str, Any], *children: dict[str, Any], relation: str = "child", **fields: Any
) -> dict[str, Any]:
    return {"span": sent, "relation": relation, "children": list(children)} | fields


def tree(*roots: dict[str, Any], trace_id: str = TRACE_A, **fields: Any) -> dict[str, Any]:
    return {"trace_id": trace_id, "span_count": 0, "roots": list(roots)} | fields


def session(session_id: str = "conv-1", **changes: Any) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "start_time_unix_nano": str(START_NS),
        "end_time_unix_nano": str(START_NS + 7_280 * MS),
        "newest_start_time_unix_nano": str(START_NS + 7_000 * MS),
        "trace_count": 3,
        "error_count": 0,
        "user_id": "user-42",
        "workflow_name": "trip",
        "models": ["gpt-5"],
        "input_tokens": 690,
        "output_tokens": 171,
        "cached_tokens": 384,
        "reasoning_tokens": 0,
        "cost": 0.000815,
        "estimated_cost": 0.000065,
    } | changes


def stats(**changes: Any) -> dict[str, Any]:
    return {
        "total_traces": 2,
        "traces_with_errors": 1,
        "error_rate": 0.5,
        "total_spans": 9,
        "total_errors": 1,
        "duration_ms": {"p50": 1.5, "p95": 9.0, "p99": 9.0},
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": 0.0,
        "estimated_cost": 0.0,
        "by_model": [],
        "by_service": [],
        "by_day": [],
    } | changes
