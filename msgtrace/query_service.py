"""Process 2: answer questions about stored traces."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import BaseRoute

from msgtrace.api.app import create_app
from msgtrace.serving import StopRequest, serve_asgi, stop_request
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.telemetry.endpoints import OperatorView
from msgtrace.telemetry.health import Readiness
from msgtrace.telemetry.logs import log_started
from msgtrace.telemetry.metrics import QueryMetrics
from msgtrace.telemetry.process import ProcessTelemetry
from msgtrace.tls import ServerTls, open_tls
from msgtrace.workers.member import Member

logger = logging.getLogger(__name__)


@asynccontextmanager
async def serve_query(
    settings: Settings,
    storage: Storage,
    telemetry: ProcessTelemetry,
    tls: ServerTls | None,
    stop: StopRequest,
    extra_routes: Sequence[BaseRoute] = (),
    member: Member | None = None,
    details: Callable[[], Mapping[str, Any]] = dict,
) -> AsyncIterator[int]:
    """Serve the query API, and `extra_routes` beside it; yields the port, plain without `tls`.

    details: what /ready says beside its verdict.
    """
    others = () if member is None else (member.problem,)
    readiness = Readiness(telemetry.probe.problem, *others)
    app = create_app(
        storage,
        operator=OperatorView(readiness, telemetry.registry, details, whole=member),
        metrics=QueryMetrics(telemetry.registry),
        cors_origins=settings.cors_origins,
        extra_routes=extra_routes,
    )
    async with (
        serve_asgi(
            app,
            settings.host,
            settings.port,
            "MSGTRACE_PORT",
            stop=stop,
            shares_port=member is not None,
            tls=tls.http_context if tls else None,
        ) as port,
        readiness.watched(),
    ):
        yield port


async def run_query_service(settings: Settings) -> None:
    """Serve the query API until asked to stop. Raises ConfigError if it cannot start."""
    async with stop_request() as stop:
        async with (
            open_tls(settings) as tls,
            open_storage(settings) as storage,
            serve_query(settings, storage, ProcessTelemetry(storage), tls, stop) as port,
        ):
            log_started(settings, "query", storage.backend, port=port)
            await stop.wait()
            logger.info("stopping")
        logger.info("stopped")
