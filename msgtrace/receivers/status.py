"""The one table from errors to answers, for both wires.

It answers the sender's question: may I resend? Source: opentelemetry-proto docs/specification.md
"Failures", "Retryable Response Codes".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import grpc

from msgtrace.errors import (
    MsgtraceError,
    RequestError,
    RequestTooLarge,
    SignalNotStored,
    StorageError,
    Unavailable,
    UnsupportedCompression,
    UnsupportedMediaType,
    WrongMessageCount,
)
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from msgtrace.telemetry.metric_set import reason_of

logger = logging.getLogger(__name__)

_CODES: dict[type[Exception], tuple[grpc.StatusCode, int]] = {
    RequestError: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    # Final for senders, because no RetryInfo comes with it.
    RequestTooLarge: (grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
    UnsupportedMediaType: (grpc.StatusCode.INVALID_ARGUMENT, 415),
    UnsupportedCompression: (grpc.StatusCode.UNIMPLEMENTED, 415),
    SignalNotStored: (grpc.StatusCode.UNIMPLEMENTED, 404),
    # As gRPC's own table of status codes has it; never said over HTTP.
    WrongMessageCount: (grpc.StatusCode.UNIMPLEMENTED, 400),
    Unavailable: (grpc.StatusCode.UNAVAILABLE, 503),
    StorageError: (grpc.StatusCode.INTERNAL, 500),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender gets to hear of an error. `retry_after_s` is set only if a retry may help."""

    grpc_code: grpc.StatusCode
    http_status: int
    message: str
    retry_after_s: int | None

    @property
    def code_number(self) -> int:
        """The code as google.rpc.Status carries it."""
        number: int = self.grpc_code.value[0]
        return number


def refuse(error: Exception, wire: str, metrics: CollectorMetrics) -> Answer:
    """The answer to an error, which is also counted and logged."""
    metrics.count_refused(wire, error)
    # Other signals have a line of their own, and the table logs what was not raised on purpose.
    if isinstance(error, MsgtraceError) and not isinstance(error, SignalNotStored):
        what = {"wire": wire, "reason": reason_of(error), "detail": str(error)}
        logger.warning("export_refused", extra=what)
    return answer_for(error)


def answer_for(error: Exception) -> Answer:
    """The nearest class in the error's ancestry decides.

    Anything not raised on purpose is INTERNAL/500, logged, and kept to ourselves.
    """
    for ancestor in type(error).__mro__:
        if ancestor in _CODES:
            retry_after_s = error.retry_after_s if isinstance(error, Unavailable) else None
            return Answer(*_CODES[ancestor], str(error), retry_after_s)
    if not isinstance(error, MsgtraceError):
        logger.error("export_failed", exc_info=error)
    return Answer(grpc.StatusCode.INTERNAL, 500, "internal error", None)
