"""Say whether the process lives and whether it can answer, for load balancers and supervisors.

Parameters are not looked at: probes may add their own. Not here: metrics.
"""

from __future__ import annotations

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse

VERSION = version("msgtrace")


async def get_health(request: Request) -> JSONResponse:
    """GET /health: the process lives. Asks no database: its absence is no reason to restart us."""
    return JSONResponse({"status": "healthy", "service": "msgtrace", "version": VERSION})


async def get_ready(request: Request) -> JSONResponse:
    """GET /ready: the database answers. StorageUnavailable is answered 503 like everywhere."""
    await request.app.state.storage.check()
    return JSONResponse({"status": "ready"})
