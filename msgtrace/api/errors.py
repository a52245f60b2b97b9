"""Answer every error of the query service in one shape: `{"detail": "one sentence"}`.

Path: an endpoint or the router raises → [api.errors] → HTTP response.
Holds the one table error → HTTP status of the query side. What the table does not know is a fault
of ours: it is logged with its traceback and answered without details.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from msgtrace.errors import (
    RequestError,
    SessionNotFound,
    SpanNotFound,
    TraceNotFound,
    Unavailable,
)

logger = logging.getLogger(__name__)

INTERNAL_ERROR = 500

_STATUS: dict[type[Exception], int] = {
    TraceNotFound: 404,
    SpanNotFound: 404,
    SessionNotFound: 404,
    RequestError: 400,
    Unavailable: 503,
}


def status_for(error: Exception) -> int:
    """The nearest class in `error`'s ancestry decides; anything unknown is 500."""
    return next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), INTERNAL_ERROR)


async def answer(request: Request, error: Exception) -> Response:
    """The response to an error that an endpoint raised; Starlette's handler signature."""
    if isinstance(error, HTTPException):
        return _response(error.status_code, error.detail, error.headers)
    status = status_for(error)
    if status == INTERNAL_ERROR:
        logger.error(
            "request_failed",
            extra={"method": request.method, "path": request.url.path},
            exc_info=error,
        )
        return _response(status, "internal error")
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    return _response(status, str(error), headers)


def _response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode({"detail": detail}), status, headers, "application/json")
