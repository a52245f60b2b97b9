"""Process 2: answer questions about stored traces."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from starlette.routing import BaseRoute

from msgtrace.api.app import create_app
from msgtrace.serving import serve_asgi, stop_requested
from msgtrace.settings import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage

logger = logging.getLogger(__name__)


def serve_query(
    settings: Settings, storage: Storage, extra_routes: Sequence[BaseRoute] = ()
) -> AbstractAsyncContextManager[int]:
    """Serve the query API, and `extra_routes` beside it; yields the port."""
    app = create_app(storage, cors_origins=settings.cors_origins, extra_routes=extra_routes)
    return serve_asgi(app, settings.host, settings.port, "MSGTRACE_PORT")


async def run_query_service(settings: Settings) -> None:
    """Serve the query API until asked to stop. Raises ConfigError if it cannot start."""
    async with open_storage(settings) as storage, serve_query(settings, storage) as port:
        logger.info("query_service_started", extra={"host": settings.host, "port": port})
        await stop_requested()
    logger.info("query_service_stopped")
