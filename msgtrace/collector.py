"""Process 1: take OTLP, commit it, answer.

The order of the `async with` is the path of a span; leaving it in reverse keeps the promise.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msgtrace.pipeline.batcher import Batcher
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.grpc import serve_grpc
from msgtrace.receivers.http import create_receiver
from msgtrace.serving import serve_asgi, stop_requested
from msgtrace.settings import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import SpanWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector: its ports, and its export for whoever takes requests on another port."""

    grpc_port: int
    http_port: int
    export: TraceExport


@asynccontextmanager
async def serve_collector(settings: Settings, writer: SpanWriter) -> AsyncIterator[Collector]:
    """Serve OTLP into `writer`.

    On leaving: the ports close, what was read is answered, the batcher drains.
    """
    async with Batcher(
        writer,
        max_batch_bytes=settings.max_batch_bytes,
        max_queued_bytes=settings.max_queued_bytes,
    ) as batcher:
        export = TraceExport(
            batcher,
            max_request_bytes=settings.max_request_bytes,
            budget=ByteBudget(settings.max_inflight_bytes),
        )
        discards_others = settings.other_signals == "discard"
        receiver = create_receiver(
            export, discards_others=discards_others, cors_origins=settings.otlp_cors_origins
        )
        async with (
            serve_grpc(
                export, settings.host, settings.grpc_port, discards_others=discards_others
            ) as grpc_port,
            serve_asgi(
                receiver, settings.host, settings.http_port, "MSGTRACE_HTTP_PORT"
            ) as http_port,
        ):
            yield Collector(grpc_port, http_port, export)


async def run_collector(settings: Settings) -> None:
    """Serve OTLP until asked to stop. Raises ConfigError if it cannot start."""
    async with (
        open_storage(settings) as storage,
        serve_collector(settings, storage) as collector,
    ):
        ports = {"grpc_port": collector.grpc_port, "http_port": collector.http_port}
        logger.info("collector_started", extra={"host": settings.host, **ports})
        await stop_requested()
        logger.info("collector_stopping")
    logger.info("collector_stopped")
