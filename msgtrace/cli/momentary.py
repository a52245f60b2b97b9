"""A query service for the length of one command, where none runs and the traces lie in a file.

Path: cli.service_options → [cli.momentary] → query_service. A program that `quick_start` observes
takes its server with it when it ends; what it has stored is still to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from msgtrace.query_service import serve_query
from msgtrace.serving import StopRequest
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.telemetry.process import ProcessTelemetry

_LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def momentary_query_service(settings: Settings) -> Iterator[str]:
    """Serve the database of `settings` on a free port of loopback; yields the URL.

    Raises ConfigError as `msgtrace query` does.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, StopRequest, int]] = Future()

    async def serve() -> None:
        stop = StopRequest()
        local = dataclasses.replace(
            settings,
            host=_LOOPBACK,
            port=0,
            tls_cert_file="",
            tls_key_file="",
            tls_client_ca_file="",
        )
        async with (
            open_storage(local) as storage,
            serve_query(local, storage, ProcessTelemetry(storage), None, stop) as port,
        ):
            started.set_result((asyncio.get_running_loop(), stop, port))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="query")
    thread.start()
    try:
        loop, stop, port = started.result()
        try:
            yield f"http://{_LOOPBACK}:{port}"
        finally:
            loop.call_soon_threadsafe(stop.ensure)
    finally:
        thread.join()
