"""OTLP/HTTP: protobuf over POST, on the standard path and on the two that real senders also use.

No redirect for a trailing slash: OpenTelemetry's Python exporter takes a redirect for success and
the data is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from msgtrace.errors import MalformedRequest, RequestTooLarge, UnsupportedMediaType
from msgtrace.otlp.encode import encode_export_response, encode_status
from msgtrace.receivers.body import is_compressed
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.status import Answer, answer_for

PROTOBUF = "application/x-protobuf"

STANDARD_PATH = "/v1/traces"
SDK_PATH = "/api/v1/traces/export"
"""Where msgtrace-sdk posts by default."""
ROOT_PATH = "/"
"""Where an exporter posts whose endpoint for traces was given without a path."""

_HTTP_CODES = {404: grpc.StatusCode.NOT_FOUND, 405: grpc.StatusCode.UNIMPLEMENTED}


def create_receiver(export: TraceExport) -> Starlette:
    """The application behind the OTLP/HTTP port."""
    app = Starlette(
        routes=export_routes(export, STANDARD_PATH, SDK_PATH, ROOT_PATH),
        exception_handlers={HTTPException: _answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app


def export_routes(export: TraceExport, *paths: str) -> list[Route]:
    """Routes that take exports on these paths."""
    return [Route(path, _endpoint(export), methods=["POST"]) for path in paths]


def _endpoint(export: TraceExport) -> Callable[[Request], Awaitable[Response]]:
    async def post_traces(request: Request) -> Response:
        try:
            _require_protobuf(request)
            is_gzip = is_compressed(request.headers.get("content-encoding", ""))
            body = await _read_body(request, export.max_request_bytes)
            batch = await export.export(body, is_gzip=is_gzip)
        except Exception as error:  # noqa: BLE001 - the table answers for every error
            return _error_response(answer_for(error))
        return Response(encode_export_response(batch), media_type=PROTOBUF)

    return post_traces


def _require_protobuf(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != PROTOBUF:
        raise UnsupportedMediaType(f"Content-Type must be {PROTOBUF}, not {content_type[:80]!r}")


async def _read_body(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise RequestTooLarge(f"the body has {declared} bytes, the limit is {max_bytes}")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise RequestTooLarge(f"the body has more than {max_bytes} bytes")
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the body was complete") from error
    return bytes(body)


def _error_response(answer: Answer) -> Response:
    headers = {}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    if answer.http_status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["Connection"] = "close"  # the rest of the body is not worth reading
    return Response(
        encode_status(answer.code_number, answer.message, answer.retry_after_s),
        answer.http_status,
        headers,
        PROTOBUF,
    )


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, grpc.StatusCode.INVALID_ARGUMENT)
    asked = f"{request.method} {request.url.path[:200]}"
    message = f"{error.detail}: {asked}; exports go to POST {STANDARD_PATH}"
    response = _error_response(Answer(code, error.status_code, message, None))
    response.headers.update(error.headers or {})
    return response
