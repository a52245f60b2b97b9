"""The endpoints for runs of agents: sessions, and what was said in a call.

Path: storage → query → [api.agents] → HTTP. As `api.traces`: parse, one call to storage, view.
Messages come only here and in whole traces, never in lists: they are what people wrote.
"""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from msgtrace.api import params
from msgtrace.api.cursors import format_cursor
from msgtrace.api.replies import (
    ConversationView,
    MessageView,
    SessionDetailView,
    SessionPageView,
    SessionView,
    ToolCallView,
)
from msgtrace.api.traces import get_stored_trace, json_response, storage_of
from msgtrace.api.views import summary_view
from msgtrace.errors import SessionNotFound, SpanNotFound
from msgtrace.model.search import Cursor, TracePage
from msgtrace.model.session import SessionPage, SessionSearch, SessionSummary
from msgtrace.model.span import Span
from msgtrace.model.trace import Trace
from msgtrace.model.units import rfc3339
from msgtrace.query.message_shapes import decoded
from msgtrace.query.messages import Conversation, Message, read_conversation
from msgtrace.query.operations import span_operation


async def find_sessions(request: Request) -> Response:
    """GET /api/v1/sessions"""
    search = params.session_search(request)
    page = await storage_of(request).find_sessions(params.tenant_id(request), search)
    return json_response(_session_page(search, page))


async def get_session(request: Request) -> Response:
    """GET /api/v1/sessions/{session_id}"""
    search = params.session_page(request)
    storage, tenant_id = storage_of(request), params.tenant_id(request)
    session = await storage.get_session(tenant_id, params.session_id(request))
    if session is None:
        raise SessionNotFound
    page = await storage.find_traces(tenant_id, search)
    return json_response(_session_detail(session, page, search.limit))


async def get_messages(request: Request) -> Response:
    """GET /api/v1/traces/{trace_id}/spans/{span_id}/messages"""
    params.refuse_all(request)
    span_id = params.span_id(request)
    trace = await get_stored_trace(request)
    span = next((each for each in trace.spans if each.span_id == span_id), None)
    if span is None:
        raise SpanNotFound(span_id.hex())
    return json_response(await asyncio.to_thread(_conversation, span, trace))


def _session_page(search: SessionSearch, page: SessionPage) -> bytes:
    return msgspec.json.encode(
        SessionPageView(
            sessions=[_session(session) for session in page.sessions],
            limit=search.limit,
            next_cursor=_cursor(page.next_cursor),
        )
    )


def _session_detail(session: SessionSummary, page: TracePage, limit: int) -> bytes:
    return msgspec.json.encode(
        SessionDetailView(
            **msgspec.structs.asdict(_session(session)),
            traces=[summary_view(summary) for summary in page.traces],
            limit=limit,
            next_cursor=_cursor(page.next_cursor),
        )
    )


def _session(session: SessionSummary) -> SessionView:
    stated = dataclasses.asdict(session)
    for name in ("newest_start_time_ns", "newest_trace_id", "start_time_ns", "end_time_ns"):
        del stated[name]
    return SessionView(
        start_time=rfc3339(session.start_time_ns),
        end_time=rfc3339(session.end_time_ns),
        start_time_unix_nano=str(session.start_time_ns),
        end_time_unix_nano=str(session.end_time_ns),
        newest_trace_id=session.newest_trace_id.hex(),
        newest_start_time=rfc3339(session.newest_start_time_ns),
        newest_start_time_unix_nano=str(session.newest_start_time_ns),
        **stated,
    )


def _cursor(cursor: Cursor | None) -> str | None:
    return None if cursor is None else format_cursor(cursor)


def _conversation(span: Span, trace: Trace) -> bytes:
    said = read_conversation(span, trace.spans)
    usage = trace.usages.get((span.span_id, span.start_time_ns))
    return msgspec.json.encode(
        ConversationView(
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            operation=span_operation(span, decoded(span.attributes)),
            model=None if usage is None else usage.model,
            input=_messages(said.input),
            output=_messages(said.output),
            tool_calls=_tool_calls(said),
            tool_definitions=said.tool_definitions,
        )
    )


def _messages(messages: list[Message]) -> list[MessageView]:
    return [
        MessageView(role=each.role, parts=each.parts, finish_reason=each.finish_reason)
        for each in messages
    ]


def _tool_calls(said: Conversation) -> list[ToolCallView]:
    return [
        ToolCallView(
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            result=call.result,
            is_answered=call.is_answered,
            span_id=None if call.span_id is None else call.span_id.hex(),
        )
        for call in said.tool_calls
    ]
