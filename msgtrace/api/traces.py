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
from msgtrace.storage.protocol import Storage


async def find_traces(request: Request) -> Response:
    """GET /api/v1/traces"""
    search = params.trace_search(request)
    page = await _storage(request).find_traces(params.tenant_id(request), search)
    return _json(views.trace_page(search, page))


async def get_trace(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}"""
    trace = await _get_trace(request)
    return _json(await asyncio.to_thread(views.trace, trace))


async def get_trace_tree(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}/tree"""
    trace = await _get_trace(request)
    return _json(await asyncio.to_thread(_tree, trace))


async def delete_trace(request: Request) -> Response:
    """DELETE /api/v1/traces/{trace_id}"""
    params.refuse_all(request)
    trace_id = params.trace_id(request)
    if not await _storage(request).delete_trace(params.tenant_id(request), trace_id):
        raise TraceNotFound(trace_id.hex())
    return Response(status_code=204)


async def delete_traces(request: Request) -> Response:
    """DELETE /api/v1/traces"""
    trace_filter = params.deletion_filter(request)
    return _json(
        views.deleted(
            await _storage(request).delete_traces(params.tenant_id(request), trace_filter)
        )
    )


async def get_stats(request: Request) -> Response:
    """GET /api/v1/stats"""
    trace_filter = params.trace_filter(request)
    return _json(
        views.stats(await _storage(request).get_stats(params.tenant_id(request), trace_filter))
    )


async def list_services(request: Request) -> Response:
    """GET /api/v1/services"""
    params.refuse_all(request)
    return _json(views.services(await _storage(request).list_services(params.tenant_id(request))))


async def list_operations(request: Request) -> Response:
    """GET /api/v1/services/{service}/operations"""
    params.refuse_all(request)
    service_name = params.service_name(request)
    return _json(
        views.operations(
            await _storage(request).list_operations(params.tenant_id(request), service_name)
        )
    )


async def _get_trace(request: Request) -> Trace:
    params.refuse_all(request)
    trace_id = params.trace_id(request)
    trace = await _storage(request).get_trace(params.tenant_id(request), trace_id)
    if trace is None:
        raise TraceNotFound(trace_id.hex())
    return trace


def _tree(trace: Trace) -> bytes:
    return views.trace_tree(trace, build_forest(trace.spans))


def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
