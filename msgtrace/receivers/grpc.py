"""OTLP/gRPC: TraceService/Export on raw bytes.

Bytes in and out, because an exception in a gRPC (de)serializer becomes UNKNOWN, which no sender
retries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from msgtrace.errors import PortUnavailable
from msgtrace.otlp.encode import encode_export_response, encode_retry_info, encode_status
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.status import Answer, answer_for
from msgtrace.serving import port_in_use, require_bindable

TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"

STOP_GRACE_S = 10.0

Context = grpc.aio.ServicerContext[bytes, bytes]


@asynccontextmanager
async def serve_grpc(export: TraceExport, host: str, port: int) -> AsyncIterator[int]:
    """Serve OTLP/gRPC; yields the port. On leaving, calls that were read are answered first.

    Raises PortUnavailable.
    """
    require_bindable(host, port, "MSGTRACE_GRPC_PORT")
    server = grpc.aio.server(options=_options(export.max_request_bytes))
    server.add_generic_rpc_handlers([_trace_service(export)])
    try:
        bound_port = server.add_insecure_port(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        )
    except RuntimeError as error:
        raise PortUnavailable(port_in_use(host, port, "MSGTRACE_GRPC_PORT")) from error
    await server.start()
    try:
        yield bound_port
    finally:
        await server.stop(STOP_GRACE_S)


def _options(max_request_bytes: int) -> list[tuple[str, int]]:
    return [
        # Also ends inflating at the limit. gRPC's own default of 4 MiB is less than one long prompt
        # may need.
        ("grpc.max_receive_message_length", max_request_bytes),
        # A second collector on the same port must fail, not share it in silence.
        ("grpc.so_reuseport", 0),
        # Exporters ping every 10 s; gRPC's defaults would cut them off with GOAWAY too_many_pings.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _trace_service(export: TraceExport) -> grpc.GenericRpcHandler:
    async def handle(body: bytes, context: Context) -> bytes:
        try:
            batch = await export.export(body)
        except Exception as error:  # noqa: BLE001 - the table answers for every error
            answer = answer_for(error)
        else:
            return encode_export_response(batch)
        await _abort(context, answer)
        raise AssertionError("abort does not return")

    # None for the (de)serializers: bytes go through as they are.
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Export": grpc.unary_unary_rpc_method_handler(handle, None, None)
    }
    return grpc.method_handlers_generic_handler(TRACE_SERVICE, methods)


async def _abort(context: Context, answer: Answer) -> None:
    """End the call with a Trailers-Only error: Java's sender reads the status nowhere else."""
    trailers: list[tuple[str, bytes]] = [
        (
            "grpc-status-details-bin",
            encode_status(answer.code_number, answer.message, answer.retry_after_s),
        )
    ]
    if answer.retry_after_s is not None:
        trailers.append(("google.rpc.retryinfo-bin", encode_retry_info(answer.retry_after_s)))
    await context.abort(answer.grpc_code, answer.message, tuple(trailers))
