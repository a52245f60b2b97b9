"""grpc.health.v1 on the OTLP/gRPC port: Check, Watch and List follow the collector's readiness.

Not the servicer of grpcio-health-checking: its watchers go on after NOT_SERVING, and would hold up
a stop until gRPC's grace is over.
Source: grpc/health/v1/health.proto.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from msgtrace.receivers.grpc import TRACE_SERVICE
from msgtrace.telemetry.health import CHECK_INTERVAL_S, Readiness

HEALTH_SERVICE = "grpc.health.v1.Health"

SERVICES = ("", TRACE_SERVICE)
"""The names that may be asked for; the empty one is the whole server."""

_Status = health_pb2.HealthCheckResponse


def health_service(readiness: Readiness) -> grpc.GenericRpcHandler:
    """The handlers for a server that serves traces."""
    health = _Health(readiness)
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Check": grpc.unary_unary_rpc_method_handler(
            health.check,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        ),
        "Watch": grpc.unary_stream_rpc_method_handler(
            health.watch,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        ),
        "List": grpc.unary_unary_rpc_method_handler(
            health.list,
            health_pb2.HealthListRequest.FromString,
            health_pb2.HealthListResponse.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler(HEALTH_SERVICE, methods)


class _Health:
    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def check(self, request: Any, context: Any) -> Any:
        """The status now; NOT_FOUND for a service that is not served."""
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return await self._status()

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The status and then each change of it; ends when the collector stops."""
        last: Any = None
        is_stopping = False
        while True:
            known = request.service in SERVICES
            status = await self._status() if known else _Status(status=_Status.SERVICE_UNKNOWN)
            if status != last:
                yield status
                last = status
            if is_stopping:
                return
            is_stopping = await self._readiness.stops_within(CHECK_INTERVAL_S)

    async def list(self, request: Any, context: Any) -> Any:
        """The status of each service."""
        status = await self._status()
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(SERVICES, status))

    async def _status(self) -> Any:
        is_ready = not await self._readiness.reasons()
        return _Status(status=_Status.SERVING if is_ready else _Status.NOT_SERVING)
