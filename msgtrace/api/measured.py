"""Count and time every request to the query port."""

from __future__ import annotations

import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msgtrace.telemetry.metrics import QueryMetrics

UNMATCHED = "unmatched"
"""The route of a request whose path has none."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OTHER_METHOD = "other"

_KIND = re.compile(r":\w+(?=\})")

_NO_ANSWER = 499
"""The status of a request whose client went away before there was one; nginx's number for it."""


class MeasuredRequests:
    """ASGI middleware; stands outside of all that may answer."""

    def __init__(self, app: ASGIApp, metrics: QueryMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it once it has an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _NO_ANSWER
        started_s = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._metrics.count_request(
                route=_route(scope),
                method=scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD,
                status=status,
                took_s=time.perf_counter() - started_s,
            )


def _route(scope: Scope) -> str:
    """The template of the route that took the request, not its path, which anybody can make up."""
    route = scope.get("route")
    template: str = getattr(route, "path", UNMATCHED)
    return shown_path(template)


def shown_path(template: str) -> str:
    """The path of a route as clients see it, without the kinds of its parameters."""
    return _KIND.sub("", template)
