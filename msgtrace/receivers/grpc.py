"""OTLP/gRPC on raw bytes.

Bytes in and out, because an exception in a gRPC (de)serializer becomes UNKNOWN, which no sender
retries. Calls are unary on the wire; `receivers.messages` says why their handlers are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import grpc

from msgtrace.connections import MAX_CONNECTIONS
from msgtrace.errors import InvalidSetting, PortUnavailable, SignalNotStored
from msgtrace.model.units import KIB
from msgtrace.ports import port_in_use, require_bindable
from msgtrace.receivers.body import coding_by_content, inflate
from msgtrace.receivers.budget import ByteLease
from msgtrace.receivers.encoding import PROTOBUF
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.messages import WIRE, Context, MessageReader, abort
from msgtrace.receivers.other_signals import SIGNALS, Signal, discard
from msgtrace.receivers.status import refuse
from msgtrace.serving import STOP_GRACE_S, StopRequest, connections_allowed

TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"

HANDSHAKE_TIMEOUT_MS = 5_000
"""From connecting to the end of the handshakes of TLS and HTTP/2."""

LOOKAHEAD_BYTES = 16 * KIB
"""What a client may send of a call before the collector reads it: the window of HTTP/2."""

MAX_PENDING_CALLS = 5_000
"""Calls that have come and that the event loop has not taken up yet.

gRPC ends some of those beyond it with CANCELLED, and all at one and a half times as many.
"""

MIN_PING_INTERVAL_MS = 5_000
"""Between two keepalive pings of a client without calls."""

_REFUSED_CERTIFICATE = "gRPC cannot use this certificate; RSA and ECDSA on P-256 or P-384 will do"


@asynccontextmanager
async def serve_grpc(
    export: TraceExport,
    reader: MessageReader,
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
    others = [_other_service(export, reader, signal, discards_others) for signal in SIGNALS]
    server.add_generic_rpc_handlers([_trace_service(export, reader), *others, *more_services])
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
        # gRPC's own default of 4 MiB is less than one long prompt may need.
        ("grpc.max_receive_message_length", max_request_bytes),
        # A hundred bombs would be inflated all at once.
        ("grpc.per_message_decompression", 0),
        ("grpc.max_allowed_incoming_connections", connections_allowed(MAX_CONNECTIONS)),
        # With gRPC's 1,000 a burst of calls by one client costs others theirs.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS * 3 // 2),
        # A second collector on the same port must fail, not share it in silence.
        ("grpc.so_reuseport", int(shares_port)),
        # Exporters ping every 10 s; gRPC's defaults would cut them off with GOAWAY too_many_pings.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A call that nobody reads yet holds so many bytes, and no more for a fast connection.
        ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
        ("grpc.http2.bdp_probe", 0),
        # A connection that says nothing, a probe's for example, would hold up a stop until its
        # grace is over.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ]


def _trace_service(export: TraceExport, reader: MessageReader) -> grpc.GenericRpcHandler:
    async def answer(context: Context, lease: ByteLease) -> bytes:
        held = [await reader.read(context, lease)]
        coding = coding_by_content(held[0])
        return PROTOBUF.encode_response(
            await export.export(held.pop(), PROTOBUF, coding, wire=WIRE)
        )

    return _export_service(TRACE_SERVICE, export, answer)


def _other_service(
    export: TraceExport, reader: MessageReader, signal: Signal, does_discard: bool
) -> grpc.GenericRpcHandler:
    """The service of a signal that is not stored.

    Registered, because gRPC's own answer for an unknown service would not say what to do about it.
    """

    async def answer(context: Context, lease: ByteLease) -> bytes:
        body = await reader.read(context, lease)
        if does_discard:
            coding, max_bytes = coding_by_content(body), export.max_request_bytes
            return await asyncio.to_thread(
                lambda: discard(signal, inflate(body, coding, max_bytes))
            )
        raise SignalNotStored(signal.message)

    return _export_service(signal.service, export, answer)


def _export_service(
    name: str, export: TraceExport, answer: Callable[[Context, ByteLease], Awaitable[bytes]]
) -> grpc.GenericRpcHandler:
    async def answered(_messages: object, context: Context) -> bytes:
        try:
            with export.budget.lease() as lease:
                return await answer(context, lease)
        except Exception as error:  # noqa: BLE001 - the table answers for every error
            refusal = refuse(error, WIRE, export.metrics)
        return await abort(context, refusal)

    # None for the (de)serializers: bytes go through as they are.
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Export": grpc.stream_unary_rpc_method_handler(answered, None, None)
    }
    return grpc.method_handlers_generic_handler(name, methods)
