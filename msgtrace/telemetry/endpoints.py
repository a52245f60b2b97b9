"""What every port that speaks HTTP answers to operators: /health, /ready and /metrics.

The application that serves them has an `OperatorView` in `app.state.operator`.
Parameters are not looked at: probes may add their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msgtrace.telemetry.health import Readiness
from msgtrace.telemetry.metrics import VERSION


class Whole(Protocol):
    """What several processes that share their ports show together; see `workers.member`."""

    async def describe(self) -> Mapping[str, Any]: ...  # noqa: D102 - explained there
    async def metrics(self) -> bytes: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class OperatorView:
    """What there is to see of a running process, or of the whole that it is a part of."""

    readiness: Readiness
    registry: CollectorRegistry
    details: Callable[[], Mapping[str, Any]] = dict
    """What /ready says beside its verdict."""
    whole: Whole | None = None


async def get_health(request: Request) -> JSONResponse:
    """GET /health: the process lives. Asks no database: its absence is no reason to restart us."""
    return JSONResponse({"status": "healthy", "service": "msgtrace", "version": VERSION})


async def get_ready(request: Request) -> JSONResponse:
    """GET /ready: 200 if the process can do its work, else 503 with the reasons."""
    view = _view(request)
    reasons = await view.readiness.reasons()
    details = view.details() if view.whole is None else await view.whole.describe()
    if reasons:
        return JSONResponse({"status": "not ready", "reasons": reasons, **details}, 503)
    return JSONResponse({"status": "ready", **details})


async def get_metrics(request: Request) -> Response:
    """GET /metrics: all metrics of the process in Prometheus' text format."""
    view = _view(request)
    page = generate_latest(view.registry) if view.whole is None else await view.whole.metrics()
    return Response(page, headers={"Content-Type": CONTENT_TYPE_LATEST})


OPERATOR_ENDPOINTS: dict[str, Callable[[Request], Awaitable[Response]]] = {
    "/health": get_health,
    "/ready": get_ready,
    "/metrics": get_metrics,
}


def operator_routes() -> list[Route]:
    """Routes for the endpoints."""
    return [Route(path, endpoint) for path, endpoint in OPERATOR_ENDPOINTS.items()]


def _view(request: Request) -> OperatorView:
    view: OperatorView = request.app.state.operator
    return view
