"""Rows of spans, resources and scopes as their readers select them, made into objects.

The inverse of what `otlp.rows` makes for storage: NULL is OTLP's default again, and text is no
longer escaped.
"""

from __future__ import annotations

from msgtrace.model.span import InstrumentationScope, JsonText, Resource, Row, Span
from msgtrace.model.text import unescape_json, unescape_text

SPAN_READ_COLUMNS = """
    s.resource_id, s.scope_id, s.trace_id, s.span_id, s.parent_span_id,
    s.start_time_ns, s.end_time_ns, s.kind, s.status_code, s.flags,
    s.dropped_attributes_count, s.dropped_events_count, s.dropped_links_count,
    s.service_name, s.name, s.status_message, s.trace_state, s.attributes, s.events, s.links
"""
"""What `span_from_row` reads."""

RESOURCE_READ_COLUMNS = "resource_id, attributes, dropped_attributes_count, entity_refs, schema_url"
SCOPE_READ_COLUMNS = "scope_id, name, version, attributes, dropped_attributes_count, schema_url"


def resource_from_row(row: Row) -> Resource:
    """A row of RESOURCE_READ_COLUMNS."""
    _, attributes, dropped, entity_refs, schema_url = row
    return Resource(
        attributes=_json(attributes),
        dropped_attributes_count=dropped or 0,
        entity_refs=_json(entity_refs),
        schema_url=unescape_text(schema_url or ""),
    )


def scope_from_row(row: Row) -> InstrumentationScope:
    """A row of SCOPE_READ_COLUMNS."""
    _, name, version, attributes, dropped, schema_url = row
    return InstrumentationScope(
        name=unescape_text(name),
        version=unescape_text(version),
        attributes=_json(attributes),
        dropped_attributes_count=dropped or 0,
        schema_url=unescape_text(schema_url or ""),
    )


def span_from_row(row: Row, resource: Resource, scope: InstrumentationScope) -> Span:
    """A row of SPAN_READ_COLUMNS."""
    return Span(
        trace_id=row[2],
        span_id=row[3],
        parent_span_id=row[4],
        start_time_ns=row[5],
        end_time_ns=row[6],
        kind=row[7],
        status_code=row[8],
        flags=row[9] or 0,
        dropped_attributes_count=row[10] or 0,
        dropped_events_count=row[11] or 0,
        dropped_links_count=row[12] or 0,
        service_name=unescape_text(row[13]),
        name=unescape_text(row[14]),
        status_message=unescape_text(row[15] or ""),
        trace_state=unescape_text(row[16] or ""),
        attributes=_json(row[17]),
        events=_json(row[18], "[]"),
        links=_json(row[19], "[]"),
        resource=resource,
        scope=scope,
    )


def _json(stored: str | None, default: str = "{}") -> JsonText:
    return JsonText(default if stored is None else unescape_json(stored))
