"""A model that costs nothing: the OpenAI-compatible API, as far as msgflux and openai use it.

What it says follows from the request alone. Tools that it is offered are called once each, with
the arguments below; when it has their results it answers with a text. A streamed request is
answered in three pieces. Tokens are the same in every run.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "gpt-4o-mini"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "get_weather": {"city": "Porto"},
    "measure": {"city": "Porto"},
    "add": {"a": 20, "b": 22},
}
TOOL_CALL_TOKENS = (120, 30)
ANSWER_TOKENS = (180, 12)


class StubHandler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions and /v1/embeddings."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(size))
        if self.path.endswith("/embeddings"):
            self._reply(_embedding(request))
        elif request.get("stream"):
            self._stream(request)
        else:
            self._reply(_completion(request))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _reply(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in _chunks(request):
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def _completion(request: dict[str, Any]) -> dict[str, Any]:
    calls = [] if _has_results(request) else _tool_calls(request)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else "42, and sunny."}
    if calls:
        message["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if calls else "stop",
    }
    tokens = TOOL_CALL_TOKENS if calls else ANSWER_TOKENS
    return _head(request, "chat.completion") | {"choices": [choice], "usage": _usage(*tokens)}


def _chunks(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    head = _head(request, "chat.completion.chunk")
    for piece in ("It ", "is ", "sunny."):
        delta = {"role": "assistant", "content": piece}
        yield head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield head | {"choices": [], "usage": _usage(*ANSWER_TOKENS)}


def _embedding(request: dict[str, Any]) -> dict[str, Any]:
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return {"object": "list", "model": request["model"], "data": [vector], "usage": usage}


def _has_results(request: dict[str, Any]) -> bool:
    return any(message["role"] == "tool" for message in request["messages"])


def _tool_calls(request: dict[str, Any]) -> list[dict[str, Any]]:
    names = [tool["function"]["name"] for tool in request.get("tools") or []]
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(ARGUMENTS.get(name, {}))},
        }
        for number, name in enumerate(names)
    ]


def _head(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": kind, "created": 1, "model": request["model"]}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


@contextmanager
def openai_stub() -> Iterator[str]:
    """The base URL of a running stub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), StubHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    with openai_stub() as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()
