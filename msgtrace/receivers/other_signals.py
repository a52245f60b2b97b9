"""Metrics, logs and profiles: not stored here, and senders are told so in a way that does no harm.

Refused by default with UNIMPLEMENTED / 404, which no sender retries, and a message that names the
variables to set. With `discard` they are accepted and reported as rejected, all of them, which
silences the exporters that log every refusal. Their requests are counted and never parsed.
Source: opentelemetry-proto docs/specification.md, "Partial Success".
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from google.protobuf.message import Message
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
from msgtrace.otlp.split import check_json, count_fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """A signal that is not stored.

    rejected_field: the field of its partial_success. item_path: where its requests hold the items
    that are counted, as field names from the request down, several where any of them will do.
    """

    name: str
    service: str
    path: str
    request: type[Message]
    response: type[Message]
    rejected_field: str
    item_path: Sequence[tuple[str, ...]]
    exporter_variable: str

    @property
    def message(self) -> str:
        """What a sender is told."""
        return f"msgtrace stores traces only; set {self.exporter_variable}=none"


_ONE_OF = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
"""The kinds of a metric: one message, where the other steps of paths are lists."""

METRICS = Signal(
    name="metrics",
    service="opentelemetry.proto.collector.metrics.v1.MetricsService",
    path="/v1/metrics",
    request=ExportMetricsServiceRequest,
    response=ExportMetricsServiceResponse,
    rejected_field="rejected_data_points",
    item_path=[
        ("resource_metrics",),
        ("scope_metrics",),
        ("metrics",),
        _ONE_OF,
        ("data_points",),
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
    item_path=[("resource_logs",), ("scope_logs",), ("log_records",)],
    exporter_variable="OTEL_LOGS_EXPORTER",
)

PROFILES = Signal(
    name="profiles",
    service="opentelemetry.proto.collector.profiles.v1development.ProfilesService",
    path="/v1development/profiles",
    request=ExportProfilesServiceRequest,
    response=ExportProfilesServiceResponse,
    rejected_field="rejected_profiles",
    item_path=[("resource_profiles",), ("scope_profiles",), ("profiles",)],
    exporter_variable="OTEL_PROFILES_EXPORTER",
)

SIGNALS = (METRICS, LOGS, PROFILES)


def discard(signal: Signal, body: bytes) -> bytes:
    """The protobuf answer that reports every item of a protobuf request as rejected.

    Raises MalformedRequest, RequestTooLarge for more fields or objects than a request may have.
    """
    count = count_fields(body, _field_numbers(signal))
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
        (whole,) = check_json(body, len(body))
        count = _count(_json_decoder(signal).decode(whole))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is no export of {signal.name}") from error
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


@cache
def _field_numbers(signal: Signal) -> Sequence[Collection[int]]:
    """The item path in field numbers."""
    steps = []
    messages: list[Any] = [signal.request.DESCRIPTOR]
    for names in signal.item_path:
        fields = [message.fields_by_name[name] for message in messages for name in names]
        steps.append({field.number for field in fields})
        messages = list({field.message_type for field in fields})
    return steps


class _Item(msgspec.Struct):
    """What is counted; its members are passed over."""


@cache
def _json_decoder(signal: Signal) -> msgspec.json.Decoder[Any]:
    """Reads nothing but the item path: other members become no objects."""
    node: Any = _Item
    for names in reversed(signal.item_path):
        is_list = names != _ONE_OF
        member = (list[node] if is_list else node) | None
        node = msgspec.defstruct("Node", [(_camel(name), member, None) for name in names])
    return msgspec.json.Decoder(node)


def _count(node: Any) -> int:
    if isinstance(node, _Item):
        return 1
    if isinstance(node, list):
        return sum(map(_count, node))
    return 0 if node is None else sum(map(_count, msgspec.structs.astuple(node)))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
