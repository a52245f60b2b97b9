"""OTLP/HTTP: protobuf and JSON over POST, on the standard path and on the two others that are used.

Every answer, errors included, is in the encoding of the request. No redirect for a trailing slash:
OpenTelemetry's Python exporter takes a redirect for success and the data is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from msgtrace.errors import MalformedRequest, Overloaded, RequestTooLarge, SignalNotStored
from msgtrace.model.units import MIB
from msgtrace.receivers.body import content_coding, inflate
from msgtrace.receivers.budget import ByteLease
from msgtrace.receivers.encoding import JSON, answer_encoding, encoding_of
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.other_signals import SIGNALS, Signal, discard, discard_json, log_refusal
from msgtrace.receivers.status import Answer, refuse
from msgtrace.telemetry.endpoints import OperatorView, operator_routes

WIRE = "http"
"""How metrics and log call this wire."""

STANDARD_PATH = "/v1/traces"
SDK_PATH = "/api/v1/traces/export"
"""Where msgtrace-sdk posts by default."""
ROOT_PATH = "/"
"""Where an exporter posts whose endpoint for traces was given without a path."""

CORS_MAX_AGE_S = 7200

MAX_UNREAD_BYTES = 8 * MIB
"""A larger body is not read to its end after it was refused: the connection is closed instead.

For a smaller one it stays open, because Go's exporter does not retry on a broken connection.
"""

_HTTP_CODES = {404: grpc.StatusCode.NOT_FOUND, 405: grpc.StatusCode.UNIMPLEMENTED}

Endpoint = Callable[[Request], Awaitable[Response]]


def create_receiver(
    export: TraceExport,
    operator: OperatorView,
    *,
    discards_others: bool = False,
    cors_origins: Sequence[str] = (),
) -> Starlette:
    """The application behind the OTLP/HTTP port, where operators also look.

    discards_others: accept other signals and report them rejected, instead of refusing them.
    cors_origins: origins whose pages may export from a browser.
    """
    others = [
        Route(signal.path, _other_endpoint(export, signal, discards_others), methods=["POST"])
        for signal in SIGNALS
    ]
    app = Starlette(
        routes=export_routes(export, STANDARD_PATH, SDK_PATH, ROOT_PATH)
        + others
        + operator_routes(),
        middleware=[_cors(cors_origins)] if cors_origins else [],
        exception_handlers={HTTPException: _answer_http_exception},
    )
    app.router.redirect_slashes = False
    app.state.operator = operator
    return app


def export_routes(export: TraceExport, *paths: str) -> list[Route]:
    """Routes that take trace exports on these paths."""

    async def post_traces(request: Request, lease: ByteLease) -> Response:
        encoding = encoding_of(_content_type(request))
        coding = content_coding(request.headers.getlist("content-encoding"))
        batch = await export.export(
            await _read_body(request, export.max_request_bytes, lease), encoding, coding, wire=WIRE
        )
        return Response(encoding.encode_response(batch), media_type=encoding.media_type)

    return [Route(path, _answering(export, post_traces), methods=["POST"]) for path in paths]


def _other_endpoint(export: TraceExport, signal: Signal, does_discard: bool) -> Endpoint:
    async def post_other(request: Request, lease: ByteLease) -> Response:
        encoding = encoding_of(_content_type(request))
        if not does_discard:
            log_refusal(signal, request.client.host if request.client else "")
            raise SignalNotStored(signal.message)
        coding = content_coding(request.headers.getlist("content-encoding"))
        body = await _read_body(request, export.max_request_bytes, lease)
        answer = discard_json if encoding is JSON else discard
        # In one go: contents that waited for a second turn would be held all at once.
        reply = await asyncio.to_thread(
            lambda: answer(signal, inflate(body, coding, export.max_request_bytes))
        )
        return Response(reply, media_type=encoding.media_type)

    return _answering(export, post_other)


def _answering(
    export: TraceExport, endpoint: Callable[[Request, ByteLease], Awaitable[Response]]
) -> Endpoint:
    """The endpoint with a lease on the byte budget, and an answer for every error."""

    async def answered(request: Request) -> Response:
        try:
            with export.budget.lease() as lease:
                return await endpoint(request, lease)
        except asyncio.CancelledError:
            # By the server, which stops and has waited long enough for this request.
            stopping = Overloaded("the collector is stopping")
            return _error_response(request, refuse(stopping, WIRE, export.metrics))
        except Exception as error:  # noqa: BLE001 - the table answers for every error
            return _error_response(request, refuse(error, WIRE, export.metrics))

    return answered


async def _read_body(request: Request, max_bytes: int, lease: ByteLease) -> bytes:
    if (declared := _declared_bytes(request)) > max_bytes:
        raise RequestTooLarge(f"the body has {declared} bytes, the limit is {max_bytes}")
    chunks: list[bytes] = []
    size = 0
    try:
        with lease.reading():
            async for chunk in request.stream():
                lease.hold(len(chunk))
                chunks.append(chunk)
                size += len(chunk)
                if size > max_bytes:
                    raise RequestTooLarge(f"the body has more than {max_bytes} bytes")
    except ClientDisconnect as error:
        raise MalformedRequest("the connection was closed before the body was complete") from error
    return b"".join(chunks)


def _declared_bytes(request: Request) -> int:
    """What Content-Length says, 0 without one."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


def _error_response(request: Request, answer: Answer) -> Response:
    headers = {}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    is_too_large = answer.http_status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if is_too_large or _declared_bytes(request) > MAX_UNREAD_BYTES:
        headers["Connection"] = "close"  # the rest of the body is not worth reading
    encoding = answer_encoding(_content_type(request))
    body = encoding.encode_status(answer.code_number, answer.message, answer.retry_after_s)
    return Response(body, answer.http_status, headers, encoding.media_type)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _HTTP_CODES.get(error.status_code, grpc.StatusCode.INVALID_ARGUMENT)
    asked = f"{request.method} {request.url.path[:200]}"
    message = f"{error.detail}: {asked}; exports go to POST {STANDARD_PATH}"
    response = _error_response(request, Answer(code, error.status_code, message, None))
    response.headers.update(error.headers or {})
    return response


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After"],
        max_age=CORS_MAX_AGE_S,
    )


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")
