"""Send OTLP requests to a collector over HTTP, each until it has an answer.

Path: cli.import_traces → [cli.otlp_endpoint] → receivers.http, of msgtrace or of anybody else.
A request that is refused for what is in it is said so; a collector that is away or busy is asked
again, for as long as the time limit allows.
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import click
import msgspec

from msgtrace.cli.client import build_opener
from msgtrace.cli.otlp_files import PROTOBUF, Record
from msgtrace.cli.text import clean
from msgtrace.model.units import MIB

TRACES_PATH = "/v1/traces"

_MEDIA_TYPES = {"json": "application/json", PROTOBUF: "application/x-protobuf"}

_PASSING = frozenset(
    (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)
"""After these a sender may try again. Source: opentelemetry-proto, "Retryable Response Codes"."""

_ABOUT_DATA = frozenset(
    (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
)
"""After these the request is bad, and the next one may well be good."""

_RETRY_DELAY_S = 1.0
_MAX_ANSWER_BYTES = MIB


class EndpointError(click.ClickException):
    """Nothing takes requests there; the text is one sentence for the terminal."""

    def __init__(self, sentence: str) -> None:
        super().__init__(clean(sentence, max_chars=2_000))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request that was answered.

    problem: why it was refused, or why spans were; empty if all are stored.
    rejected_spans: how many of an accepted request are not stored.
    """

    is_accepted: bool
    problem: str = ""
    rejected_spans: int = 0


class PartialSuccess(msgspec.Struct, rename="camel"):
    """What a collector left out. Text or number, as JSON encoders differ."""

    rejected_spans: int = 0
    error_message: str = ""


class ExportReply(msgspec.Struct, rename="camel"):
    """ExportTraceServiceResponse in JSON."""

    partial_success: PartialSuccess = msgspec.field(default_factory=PartialSuccess)


class StatusReply(msgspec.Struct):
    """google.rpc.Status in JSON."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class OtlpEndpoint:
    """One collector. url has no trailing slash; timeout_s bounds one request with all its tries.

    is_given_up: set it, and nobody waits for another try.
    """

    url: str
    timeout_s: float
    client_cert: Path | None = None
    is_given_up: threading.Event = field(default_factory=threading.Event)

    def send(self, record: Record) -> Answer:
        """The answer to a record's request, once there is one. Raises EndpointError."""
        request = urllib.request.Request(  # noqa: S310 - read_url takes http and https only
            f"{self.url}{TRACES_PATH}",
            data=record.body,
            method="POST",
            headers={"Content-Type": _MEDIA_TYPES[record.encoding], "User-Agent": "msgtrace"},
        )
        deadline = time.monotonic() + self.timeout_s
        opener = build_opener(self.url, self.client_cert)
        while True:
            left_s = max(deadline - time.monotonic(), 0.001)
            try:
                with opener.open(request, timeout=left_s) as response:
                    return _accepted(response.read(_MAX_ANSWER_BYTES), record.encoding)
            except urllib.error.HTTPError as error:
                with error:
                    delay_s = self._require_passing(error)
                    if delay_s is None:
                        return Answer(False, _reason(error, record.encoding))
                reason = f"it answered {error.code}"
            except (OSError, http.client.HTTPException) as error:
                reason, delay_s = _transport_problem(error), _RETRY_DELAY_S
            is_late = time.monotonic() + delay_s >= deadline
            if is_late or self.is_given_up.wait(delay_s):
                raise EndpointError(
                    f"{self.url} took no request within {self.timeout_s:g} s ({reason});"
                    " start a collector, name it with --endpoint, or give it longer with --timeout"
                )

    def _require_passing(self, error: urllib.error.HTTPError) -> float | None:
        """How long to wait before the next try, None if the request is bad.

        Raises EndpointError for an answer that says neither.
        """
        if error.code in _PASSING:
            said = error.headers.get("Retry-After", "")
            return float(said) if said.isdecimal() else _RETRY_DELAY_S
        if error.code in _ABOUT_DATA:
            return None
        raise EndpointError(
            f"{self.url}{TRACES_PATH} answered {error.code} {error.reason}:"
            " no collector takes OTLP/HTTP there; name one with --endpoint"
        )


def _accepted(body: bytes, encoding: str) -> Answer:
    """An answer with success; what cannot be read of it rejects nothing."""
    try:
        partial = _read_protobuf(body) if encoding == PROTOBUF else _read_json(body)
    except (ValueError, RecursionError):
        return Answer(True)
    return Answer(True, partial.error_message, partial.rejected_spans)


def _read_json(body: bytes) -> PartialSuccess:
    return msgspec.json.decode(body or b"{}", type=ExportReply, strict=False).partial_success


def _read_protobuf(body: bytes) -> PartialSuccess:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - slow to load
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
        ExportTraceServiceResponse,
    )

    try:
        said = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError as error:
        raise ValueError("not a response") from error
    return PartialSuccess(said.rejected_spans, said.error_message)


def _reason(error: urllib.error.HTTPError, encoding: str) -> str:
    """The sentence of a refusal."""
    body = error.read(_MAX_ANSWER_BYTES)
    try:
        message = _status_message(body) if encoding == PROTOBUF else _json_message(body)
    except (ValueError, RecursionError):
        message = ""
    return message or f"refused with {error.code} {error.reason}"


def _json_message(body: bytes) -> str:
    return msgspec.json.decode(body, type=StatusReply).message


def _status_message(body: bytes) -> str:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - slow to load
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    try:
        message: str = Status.FromString(body).message
    except DecodeError as error:
        raise ValueError("not a status") from error
    return message


def _transport_problem(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    said = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return said or type(error).__name__
