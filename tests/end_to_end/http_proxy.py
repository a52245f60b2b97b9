"""An HTTP proxy before a service, to break replies off and to refuse requests."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class HttpProxy:
    """Passes requests on to 127.0.0.1:`target`, one by one counted in `passed`.

    whole: how many replies are passed on whole; the one after is cut in the middle, and further
    requests are answered with 503. None: all are.
    """

    target: int
    url: str = ""
    whole: int | None = None
    passed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def verdict(self, path: str) -> str:
        """What happens to the next request: pass, cut or refuse."""
        with self._lock:
            if self.whole is None:
                self.passed.append(path)
                return "pass"
            self.whole -= 1
            if self.whole < -1:
                return "refuse"
            if self.whole == -1:
                return "cut"
            self.passed.append(path)
            return "pass"


@contextlib.contextmanager
def http_proxy(target: int) -> Iterator[HttpProxy]:
    proxy = HttpProxy(target)

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            verdict = proxy.verdict(self.path)
            if verdict == "refuse":
                self.send_error(503)
                return
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=30)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body, dict(self.headers))
                reply = upstream.getresponse()
                content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if verdict == "cut" else content)

        do_GET = do_POST = pass_on  # noqa: N815 - names given by http.server

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
