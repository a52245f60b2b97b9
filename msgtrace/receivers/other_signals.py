"""Metrics, logs and profiles: not stored here, and senders are told so in a way that does no harm.

Refused by default with UNIMPLEMENTED / 404, which no sender retries, and a message that names the
variables to set. With `discard` they are accepted and reported as rejected, all of them, which
silences the exporters that log every refusal.
Source: opentelemetry-proto docs/specification.md, "Partial Success".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse,
)

from msgtrace.errors import MalformedRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that is not stored.

    rejected_field: the field of its partial_success. item_paths: where its requests hold the items
    that are counted, as field names from the request down; the last one is the list.
    """

    name: str
    service: str
    path: str
    request: type[Message]
    response: type[Message]
    rejected_field: str
    item_paths: Sequence[tuple[str, ...]]
    exporter_variable: str

    @property
    def message(self) -> str:
        """What a sender is told."""
        return f"msgtrace stores traces only; set {self.exporter_variable}=none"


_METRIC_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")

METRICS = Signal(
    name="metrics",
    service="opentelemetry.proto.collector.metrics.v1.MetricsService",
    path="/v1/metrics",
    request=ExportMetricsServiceRequest,
    response=ExportMetricsServiceResponse,
    rejected_field="rejected_data_points",
    item_paths=[
        ("resource_metrics", "scope_metrics", "metrics", kind, "data_points")
        for kind in _METRIC_KINDS
    ],
    exporter_variable="OTEL_METRICS_EXPORTER",
)

LOGS = Signal(
    name="logs",
    service="opentelemetry.proto.collector.logs.v1.LogsService",
    path="/v1/logs",
    request=ExportLogsServiceRequest,
    response=ExportLogsServiceResponse,
    rejected_field="rejected_log_records",
    item_paths=[("resource_logs", "scope_logs", "log_records")],
    exporter_variable="OTEL_LOGS_EXPORTER",
)

PROFILES = Signal(
    name="profiles",
    service="opentelemetry.proto.collector.profiles.v1development.ProfilesService",
    path="/v1development/profiles",
    request=ExportProfilesServiceRequest,
    response=ExportProfilesServiceResponse,
    rejected_field="rejected_profiles",
    item_paths=[("resource_profiles", "scope_profiles", "profiles")],
    exporter_variable="OTEL_PROFILES_EXPORTER",
)

SIGNALS = (METRICS, LOGS, PROFILES)


def discard(signal: Signal, body: bytes) -> bytes:
    """The protobuf answer that reports every item of a protobuf request as rejected.

    Raises MalformedRequest.
    """
    try:
        request = signal.request.FromString(body)
    except DecodeError as error:
        raise MalformedRequest(f"the body is no export of {signal.name}") from error
    count = sum(_count(request, path, getattr) for path in signal.item_paths)
    response = signal.response()
    if count:
        partial_success = response.partial_success  # type: ignore[attr-defined]
        setattr(partial_success, signal.rejected_field, count)
        partial_success.error_message = signal.message
    serialized: bytes = response.SerializeToString()
    return serialized


def discard_json(signal: Signal, body: bytes) -> bytes:
    """The same for OTLP/JSON."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is no export of {signal.name}") from error
    count = sum(_count(request, path, _json_member) for path in signal.item_paths)
    partial_success = {
        _camel(signal.rejected_field): str(count),
        "errorMessage": signal.message,
    }
    return msgspec.json.encode({"partialSuccess": partial_success} if count else {})


def log_refusal(signal: Signal, peer: str) -> None:
    """Log once for each signal and peer; exporters come back every minute."""
    if (signal.name, peer) in _logged or len(_logged) >= _MAX_LOGGED:
        return
    _logged.add((signal.name, peer))
    logger.warning("other_signal_refused", extra={"signal": signal.name, "peer": peer})


_logged: set[tuple[str, str]] = set()
_MAX_LOGGED = 1000


def _count(node: Any, path: tuple[str, ...], member: Callable[[Any, str], Any]) -> int:
    """How many items lie at the end of `path`; lists on the way are walked."""
    if not path:
        return len(node)
    child = member(node, path[0])
    if len(path) > 1 and _is_list(child):
        return sum(_count(each, path[1:], member) for each in child)
    return _count(child, path[1:], member)


def _is_list(node: Any) -> bool:
    return not isinstance(node, Message | dict)


def _json_member(node: Any, name: str) -> Any:
    child = node.get(_camel(name)) if isinstance(node, dict) else None
    return child if isinstance(child, list | dict) else []


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
