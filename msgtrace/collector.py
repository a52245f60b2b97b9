"""Process 1: take OTLP, commit it, answer.

The order of the `async with` is the path of a span; leaving it in reverse keeps the promise.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from msgtrace.maintenance.filters import filters_kept
from msgtrace.maintenance.watch import maintained
from msgtrace.otlp.encodings import use_decoder
from msgtrace.otlp.rules import read_rules
from msgtrace.pipeline.assembly import open_pipeline
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.grpc import serve_grpc
from msgtrace.receivers.health import health_service
from msgtrace.receivers.http import create_receiver
from msgtrace.receivers.messages import MessageReader
from msgtrace.serving import StopRequest, serve_asgi, stop_request
from msgtrace.settings.table import NO_SPILL, Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from msgtrace.telemetry.endpoints import OperatorView
from msgtrace.telemetry.health import Problem, Readiness, queue_problem, unless
from msgtrace.telemetry.logs import log_started
from msgtrace.telemetry.metrics import MaintenanceMetrics
from msgtrace.telemetry.process import ProcessTelemetry
from msgtrace.tls import ServerTls, open_tls
from msgtrace.workers.member import Member, listening

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector: its ports, and its export for whoever takes requests on another port.

    Without ports of its own, that is the only way in. decoder: python or native. `totals` go on
    telling what it did after it has stopped.
    """

    grpc_port: int | None
    http_port: int | None
    export: TraceExport
    decoder: str
    totals: Callable[[], dict[str, int]]


@asynccontextmanager
async def serve_collector(
    settings: Settings,
    storage: Storage,
    telemetry: ProcessTelemetry,
    tls: ServerTls | None,
    stop: StopRequest,
    member: Member | None = None,
    *,
    opens_ports: bool = True,
) -> AsyncIterator[Collector]:
    """Serve OTLP into `storage`, on plain ports without `tls`, as one of several if a member.

    On leaving: it says that it is not ready, the ports close, what was read is answered, the
    batcher drains.
    """
    metrics = CollectorMetrics(telemetry.registry)
    decoder = use_decoder(settings.decoder)
    metrics.name_decoder(decoder)
    rules = read_rules(settings)
    async with open_pipeline(settings, storage, metrics, telemetry.registry, rules) as pipeline:
        export = TraceExport(
            pipeline.sink,
            max_request_bytes=settings.max_request_bytes,
            budget=ByteBudget(settings.max_inflight_bytes),
            metrics=metrics,
            rules=rules,
        )
        if not opens_ports:
            yield Collector(None, None, export, decoder, pipeline.totals)
            return
        reader = MessageReader(settings.max_inflight_bytes, metrics)
        problems: tuple[Problem, ...] = (
            unless(pipeline.replaces_database, telemetry.probe.problem),
            queue_problem(pipeline.queued_bytes, settings.max_queued_bytes),
        )
        if member is not None:
            member.shows(problems, pipeline.describe, telemetry.registry)
            problems = (*problems, member.problem)
        readiness = Readiness(*problems)
        discards_others = settings.other_signals == "discard"
        receiver = create_receiver(
            export,
            OperatorView(readiness, telemetry.registry, pipeline.describe, member),
            discards_others=discards_others,
            cors_origins=settings.otlp_cors_origins,
        )
        async with (
            serve_grpc(
                export,
                reader,
                settings.host,
                settings.grpc_port,
                stop=stop,
                shares_port=member is not None,
                discards_others=discards_others,
                more_services=[health_service(readiness, export.budget, reader)],
                credentials=tls.grpc_credentials() if tls else None,
            ) as grpc_port,
            serve_asgi(
                receiver,
                settings.host,
                settings.http_port,
                "MSGTRACE_HTTP_PORT",
                stop=stop,
                shares_port=member is not None,
                tls=tls.http_context if tls else None,
            ) as http_port,
            readiness.watched(),
            maintained(storage.maintenance, settings, MaintenanceMetrics(telemetry.registry)),
            filters_kept(storage, pipeline.queued_bytes),
        ):
            yield Collector(grpc_port, http_port, export, decoder, pipeline.totals)


def open_collector_storage(settings: Settings) -> AbstractAsyncContextManager[Storage]:
    """The storage of a collector, which does not wait for a database that its spill replaces."""
    return open_storage(settings, waits=settings.spill_dir == NO_SPILL)


async def run_collector(settings: Settings, member: Member | None = None) -> None:
    """Serve OTLP until asked to stop. Raises ConfigError if it cannot start."""
    async with stop_request() as stop, listening(member, stop.ensure):
        async with (
            open_tls(settings) as tls,
            open_collector_storage(settings) as storage,
            serve_collector(
                settings, storage, ProcessTelemetry(storage), tls, stop, member
            ) as collector,
        ):
            log_started(
                settings,
                "collector",
                storage.backend,
                grpc_port=collector.grpc_port,
                http_port=collector.http_port,
                decoder=collector.decoder,
            )
            if member is not None:
                member.say_serving()
            await stop.wait()
            logger.info("stopping")
        logger.info("stopped", extra=collector.totals())
