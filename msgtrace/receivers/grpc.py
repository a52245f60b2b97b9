"""OTLP/gRPC on raw bytes.

Bytes in and out, because an exception in a gRPC (de)serializer becomes UNKNOWN, which no sender
retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import grpc

from msgtrace.errors import InvalidSetting, PortUnavailable, SignalNotStored
from msgtrace.otlp.encode import encode_retry_info, encode_status
from msgtrace.ports import port_in_use, require_bindable
from msgtrace.receivers.encoding import PROTOBUF
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.other_signals import SIGNALS, Signal, discard
from msgtrace.receivers.status import Answer, refuse
from msgtrace.serving import STOP_GRACE_S, StopRequest
from msgtrace.telemetry.metrics import CollectorMetrics

WIRE = "grpc"
"""How metrics and log call this wire."""

TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"

HANDSHAKE_TIMEOUT_MS = 5_000
"""From connecting to the end of the handshakes of TLS and HTTP/2."""

MIN_PING_INTERVAL_MS = 5_000
"""Between two keepalive pings of a client without calls."""

_REFUSED_CERTIFICATE = "gRPC cannot use this certificate; RSA and ECDSA on P-256 or P-384 will do"

Context = grpc.aio.ServicerContext[bytes, bytes]


@asynccontextmanager
async def serve_grpc(
    export: TraceExport,
    host: str,
    port: int,
    *,
    stop: StopRequest,
    shares_port: bool = False,
    discards_others: bool = False,
    more_services: Sequence[grpc.GenericRpcHandler] = (),
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[int]:
    """Serve OTLP/gRPC; yields the port. On leaving, calls that were read are answered first.

    credentials: for TLS; a plain port without them. shares_port: with the other workers of a
    supervisor.
    Raises PortUnavailable, and InvalidSetting for a certificate that gRPC cannot use.
    """
    if not shares_port:
        require_bindable(host, port, "MSGTRACE_GRPC_PORT")
    server = grpc.aio.server(options=_options(export.max_request_bytes, shares_port))
    others = [_other_service(export, signal, discards_others) for signal in SIGNALS]
    server.add_generic_rpc_handlers([_trace_service(export), *others, *more_services])
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            bound_port = server.add_insecure_port(address)
        else:
            bound_port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        if credentials is not None:
            raise InvalidSetting("MSGTRACE_TLS_CERT_FILE", _REFUSED_CERTIFICATE) from error
        raise PortUnavailable(port_in_use(host, port, "MSGTRACE_GRPC_PORT")) from error
    await server.start()
    stopping: list[asyncio.Task[None]] = []
    stop.call_when_made(
        lambda: stopping.append(asyncio.create_task(server.stop(STOP_GRACE_S), name="stop-grpc"))
    )
    try:
        yield bound_port
    finally:
        await asyncio.gather(server.stop(STOP_GRACE_S), *stopping)


def _options(max_request_bytes: int, shares_port: bool) -> list[tuple[str, int]]:
    return [
        # Also ends inflating at the limit. gRPC's own default of 4 MiB is less than one long prompt
        # may need.
        ("grpc.max_receive_message_length", max_request_bytes),
        # A second collector on the same port must fail, not share it in silence.
        ("grpc.so_reuseport", int(shares_port)),
        # Exporters ping every 10 s; gRPC's defaults would cut them off with GOAWAY too_many_pings.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A connection that says nothing, a probe's for example, would hold up a stop until its
        # grace is over.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ]


def _trace_service(export: TraceExport) -> grpc.GenericRpcHandler:
    async def answer(body: bytes) -> bytes:
        with export.budget.lease() as lease:
            lease.hold(len(body))
            batch = await export.export(body, PROTOBUF, wire=WIRE)
        return PROTOBUF.encode_response(batch)

    return _export_service(TRACE_SERVICE, export.metrics, answer)


def _other_service(
    export: TraceExport, signal: Signal, does_discard: bool
) -> grpc.GenericRpcHandler:
    """The service of a signal that is not stored.

    Registered, because gRPC's own answer for an unknown service would not say what to do about it.
    """

    async def answer(body: bytes) -> bytes:
        if does_discard:
            return discard(signal, body)
        raise SignalNotStored(signal.message)

    return _export_service(signal.service, export.metrics, answer)


def _export_service(
    name: str, metrics: CollectorMetrics, answer: Callable[[bytes], Awaitable[bytes]]
) -> grpc.GenericRpcHandler:
    async def export(body: bytes, context: Context) -> bytes:
        try:
            return await answer(body)
        except Exception as error:  # noqa: BLE001 - the table answers for every error
            refusal = refuse(error, WIRE, metrics)
        await _abort(context, refusal)
        raise AssertionError("abort does not return")

    # None for the (de)serializers: bytes go through as they are.
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Export": grpc.unary_unary_rpc_method_handler(export, None, None)
    }
    return grpc.method_handlers_generic_handler(name, methods)


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
