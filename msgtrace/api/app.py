"""Make the query service's ASGI application: the one route table, and what stands around it.

Path: HTTP → [api.app] → api.traces → storage.
The caller opens and closes the storage, and serves the application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from msgtrace.api import agents, errors, traces
from msgtrace.api.export import EXPORT_HEADERS, ExportPace, export_traces
from msgtrace.api.measured import MeasuredRequests, shown_path
from msgtrace.api.openapi import get_docs, get_openapi
from msgtrace.storage.protocol import Storage
from msgtrace.telemetry.endpoints import OPERATOR_ENDPOINTS, OperatorView
from msgtrace.telemetry.health import DatabaseProbe, Readiness
from msgtrace.telemetry.metrics import QueryMetrics

Endpoint = Callable[[Request], Awaitable[Response]]


class AnyText(Convertor[str]):
    """Text with slashes, which are decoded before the path is matched, and with line ends."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """The text itself."""
        return value

    def to_string(self, value: str) -> str:
        """The text itself."""
        return value


register_url_convertor("text", AnyText())

ROUTES: dict[str, dict[str, Endpoint]] = {
    "/api/v1/traces": {"GET": traces.find_traces, "DELETE": traces.delete_traces},
    "/api/v1/traces/export": {"GET": export_traces},
    "/api/v1/traces/{trace_id}": {"GET": traces.get_trace, "DELETE": traces.delete_trace},
    "/api/v1/traces/{trace_id}/tree": {"GET": traces.get_trace_tree},
    "/api/v1/traces/{trace_id}/spans/{span_id}/messages": {"GET": agents.get_messages},
    "/api/v1/sessions": {"GET": agents.find_sessions},
    "/api/v1/sessions/{session_id:text}": {"GET": agents.get_session},
    "/api/v1/stats": {"GET": traces.get_stats},
    "/api/v1/services": {"GET": traces.list_services},
    "/api/v1/services/{service:text}/operations": {"GET": traces.list_operations},
    **{path: {"GET": endpoint} for path, endpoint in OPERATOR_ENDPOINTS.items()},
    "/openapi.json": {"GET": get_openapi},
    "/docs": {"GET": get_docs},
}


def create_app(
    storage: Storage,
    *,
    operator: OperatorView | None = None,
    metrics: QueryMetrics | None = None,
    cors_origins: Sequence[str] = (),
    extra_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The application over an open storage.

    operator: what operators see; by default whether the storage answers, and no metrics.
    cors_origins: origins whose pages may call it, `*` for any.
    extra_routes come after the table's, e.g. OTLP/HTTP on the same port.
    """
    app = Starlette(
        routes=[*(_route(path, endpoints) for path, endpoints in ROUTES.items()), *extra_routes],
        middleware=[
            Middleware(MeasuredRequests, metrics=metrics or QueryMetrics()),
            *_cors(cors_origins),
            _answer_errors(),
        ],
        exception_handlers={HTTPException: errors.answer},
    )
    app.router.redirect_slashes = False
    app.state.storage = storage
    app.state.export_pace = ExportPace()
    app.state.documented_routes = documented_routes()
    app.state.operator = operator or _view_of(storage)
    return app


def documented_routes() -> tuple[tuple[str, str], ...]:
    """Every (method, path) of the table, as clients see the path."""
    return tuple(
        (method, shown_path(path)) for path, endpoints in ROUTES.items() for method in endpoints
    )


def _route(path: str, endpoints: Mapping[str, Endpoint]) -> Route:
    """One route for all methods of a path, so that `Allow` of a 405 names them all.

    HEAD is GET; the server leaves the body out.
    """

    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=list(endpoints))


def _view_of(storage: Storage) -> OperatorView:
    async def check() -> None:
        await storage.check()

    return OperatorView(Readiness(DatabaseProbe(check).problem), CollectorRegistry())


def _answer_errors() -> Middleware:
    """Inside CORS, so that a page may read the answer.

    A handler for Exception among `exception_handlers` would run outside of it, and Starlette raises
    again after such a handler, so that the server would log the error a second time.
    """
    return Middleware(ExceptionMiddleware, handlers={Exception: errors.answer})


def _cors(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "DELETE"],
            expose_headers=["Retry-After", *EXPORT_HEADERS],
        )
    ]
