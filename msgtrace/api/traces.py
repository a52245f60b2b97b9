"""The endpoints: parse, one call to storage, view.

Path: storage → query → [api.traces] → HTTP.
The JSON of a whole trace is made in a thread: a trace may have 50,000 spans, and the event loop has
other requests to serve meanwhile.
Not here: paths and methods (api.app), statuses of errors (api.errors).
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from msgtrace.api import params, views
from msgtrace.errors import TraceNotFound
from msgtrace.model.trace import Trace
from msgtrace.query.tree import build_forest
from msgtrace.query.usage import fold_wrappers, with_usage
from msgtrace.storage.protocol import Storage


async def find_traces(request: Request) -> Response:
    """GET /api/v1/traces"""
    search = params.trace_search(request)
    page = await storage_of(request).find_traces(params.tenant_id(request), search)
    return json_response(views.trace_page(search, page))


async def get_trace(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}"""
    params.refuse_all(request)
    trace = await get_stored_trace(request)
    return json_response(await asyncio.to_thread(views.trace, trace))


async def get_trace_tree(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}/tree"""
    folds = params.folds_wrappers(request)
    trace = await get_stored_trace(request)
    return json_response(await asyncio.to_thread(_tree, trace, folds))


async def delete_trace(request: Request) -> Response:
    """DELETE /api/v1/traces/{trace_id}"""
    params.refuse_all(request)
    trace_id = params.trace_id(request)
    if not await storage_of(request).delete_trace(params.tenant_id(request), trace_id):
        raise TraceNotFound(trace_id.hex())
    return Response(status_code=204)


async def delete_traces(request: Request) -> Response:
    """DELETE /api/v1/traces"""
    trace_filter = params.deletion_filter(request)
    return json_response(
        views.deleted(
            await storage_of(request).delete_traces(params.tenant_id(request), trace_filter)
        )
    )


async def get_stats(request: Request) -> Response:
    """GET /api/v1/stats"""
    trace_filter = params.trace_filter(request)
    return json_response(
        views.stats(await storage_of(request).get_stats(params.tenant_id(request), trace_filter))
    )


async def list_services(request: Request) -> Response:
    """GET /api/v1/services"""
    params.refuse_all(request)
    return json_response(
        views.services(await storage_of(request).list_services(params.tenant_id(request)))
    )


async def list_operations(request: Request) -> Response:
    """GET /api/v1/services/{service}/operations"""
    params.refuse_all(request)
    service_name = params.service_name(request)
    return json_response(
        views.operations(
            await storage_of(request).list_operations(params.tenant_id(request), service_name)
        )
    )


async def get_stored_trace(request: Request) -> Trace:
    """The trace of the path. Raises TraceNotFound."""
    trace_id = params.trace_id(request)
    trace = await storage_of(request).get_trace(params.tenant_id(request), trace_id)
    if trace is None:
        raise TraceNotFound(trace_id.hex())
    return trace


def _tree(trace: Trace, folds_wrappers: bool) -> bytes:
    roots = with_usage(build_forest(trace.spans), trace.usages)
    return views.trace_tree(trace, fold_wrappers(roots) if folds_wrappers else roots)


def storage_of(request: Request) -> Storage:
    """What the application reads."""
    storage: Storage = request.app.state.storage
    return storage


def json_response(content: bytes) -> Response:
    """An answer that is encoded already."""
    return Response(content, media_type="application/json")
