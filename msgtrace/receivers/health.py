"""grpc.health.v1 on the OTLP/gRPC port: Check, Watch and List follow the collector's readiness.

Not the servicer of grpcio-health-checking: its watchers go on after NOT_SERVING, and would hold up
a stop until gRPC's grace is over.
Source: grpc/health/v1/health.proto.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from msgtrace.errors import MsgtraceError
from msgtrace.model.units import KIB
from msgtrace.receivers.body import coding_by_content, inflate
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.grpc import TRACE_SERVICE
from msgtrace.receivers.messages import Context, MessageReader
from msgtrace.receivers.status import answer_for
from msgtrace.telemetry.health import CHECK_INTERVAL_S, Readiness

HEALTH_SERVICE = "grpc.health.v1.Health"

SERVICES = ("", TRACE_SERVICE)
"""The names that may be asked for; the empty one is the whole server."""

MAX_REQUEST_BYTES = 4 * KIB

_Status = health_pb2.HealthCheckResponse


def health_service(
    readiness: Readiness, budget: ByteBudget, reader: MessageReader
) -> grpc.GenericRpcHandler:
    """The handlers for a server that serves traces. Their messages are read as exports are."""
    health = _Health(readiness, budget, reader)
    methods: dict[str, grpc.RpcMethodHandler[bytes, Any]] = {
        "Check": grpc.stream_unary_rpc_method_handler(
            health.check, None, health_pb2.HealthCheckResponse.SerializeToString
        ),
        "Watch": grpc.stream_stream_rpc_method_handler(
            health.watch, None, health_pb2.HealthCheckResponse.SerializeToString
        ),
        "List": grpc.stream_unary_rpc_method_handler(
            health.list, None, health_pb2.HealthListResponse.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler(HEALTH_SERVICE, methods)


class _Health:
    def __init__(self, readiness: Readiness, budget: ByteBudget, reader: MessageReader) -> None:
        self._readiness = readiness
        self._budget = budget
        self._reader = reader

    async def check(self, _messages: object, context: Context) -> Any:
        """The status now; NOT_FOUND for a service that is not served."""
        if await self._service(context) not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return await self._status()

    async def watch(self, _messages: object, context: Context) -> AsyncIterator[Any]:
        """The status and then each change of it; ends when the collector stops."""
        known = await self._service(context) in SERVICES
        last: Any = None
        is_stopping = False
        while True:
            status = await self._status() if known else _Status(status=_Status.SERVICE_UNKNOWN)
            if status != last:
                yield status
                last = status
            if is_stopping:
                return
            is_stopping = await self._readiness.stops_within(CHECK_INTERVAL_S)

    async def list(self, _messages: object, context: Context) -> Any:
        """The status of each service."""
        await self._service(context)
        status = await self._status()
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(SERVICES, status))

    async def _service(self, context: Context) -> str:
        """What the request asks for; List's has no fields."""
        try:
            with self._budget.lease() as lease:
                message = await self._reader.read(context, lease)
                message = inflate(message, coding_by_content(message), MAX_REQUEST_BYTES)
                service: str = health_pb2.HealthCheckRequest.FromString(message).service
                return service
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a request of this service")
        except MsgtraceError as error:
            answer = answer_for(error)
            await context.abort(answer.grpc_code, answer.message)
        raise AssertionError("abort does not return")

    async def _status(self) -> Any:
        is_ready = not await self._readiness.reasons()
        return _Status(status=_Status.SERVING if is_ready else _Status.NOT_SERVING)
