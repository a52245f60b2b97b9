"""The endpoints: parse, one call to storage, view.

Path: storage → query → [api.traces] → HTTP.
The JSON of a small trace is made at once, in a thread: the event loop has other requests to serve.
That of a large one is streamed while its spans are read.
Not here: paths and methods (api.app), statuses of errors (api.errors).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from msgtrace.api import params, views
from msgtrace.api.streaming import ReadSpans, trace_pieces, tree_pieces
from msgtrace.errors import TraceNotFound
from msgtrace.model.trace import Trace, TraceOutline
from msgtrace.query.tree import build_forest
from msgtrace.query.usage import fold_wrappers, with_usage
from msgtrace.storage.protocol import Storage

MAX_WHOLE_SPANS = 512
"""Traces up to so many spans are read and answered as a whole."""


async def find_traces(request: Request) -> Response:
    """GET /api/v1/traces"""
    search = params.trace_search(request)
    page = await storage_of(request).find_traces(params.tenant_id(request), search)
    return json_response(views.trace_page(search, page))


async def get_trace(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}"""
    params.refuse_all(request)
    trace = await _get_trace_or_outline(request)
    if isinstance(trace, TraceOutline):
        return _stream(trace_pieces(trace, _span_reader(request, trace)))
    return json_response(await asyncio.to_thread(views.trace, trace))


async def get_trace_tree(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}/tree"""
    folds = params.folds_wrappers(request)
    # What wraps is known by attributes, which an outline does not have.
    trace = await (get_stored_trace if folds else _get_trace_or_outline)(request)
    if isinstance(trace, TraceOutline):
        return _stream(tree_pieces(trace, _span_reader(request, trace)))
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
    """The whole trace of the path. Raises TraceNotFound."""
    trace_id = params.trace_id(request)
    trace = await storage_of(request).get_trace(params.tenant_id(request), trace_id)
    if trace is None:
        raise TraceNotFound(trace_id.hex())
    return trace


async def _get_trace_or_outline(request: Request) -> Trace | TraceOutline:
    trace_id = params.trace_id(request)
    trace = await storage_of(request).get_trace_or_outline(
        params.tenant_id(request), trace_id, max_spans=MAX_WHOLE_SPANS
    )
    if trace is None:
        raise TraceNotFound(trace_id.hex())
    return trace


def _span_reader(request: Request, outline: TraceOutline) -> ReadSpans:
    read = storage_of(request).read_outlined
    return partial(read, params.tenant_id(request), outline.summary.trace_id)


def _tree(trace: Trace, folds_wrappers: bool) -> bytes:
    roots = with_usage(build_forest(trace.spans), trace.usages)
    return views.trace_tree(trace, fold_wrappers(roots) if folds_wrappers else roots)


def storage_of(request: Request) -> Storage:
    """What the application reads."""
    storage: Storage = request.app.state.storage
    return storage


def _stream(pieces: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(pieces, media_type="application/json")


def json_response(content: bytes) -> Response:
    """An answer that is encoded already."""
    return Response(content, media_type="application/json")
