"""The API's description in OpenAPI 3.1, made from the route table, the replies and their texts.

Path: api.app (routes), api.replies (shapes), api.operations and api.descriptions (texts) →
[api.openapi] → HTTP. A route, parameter or field without a text raises, which a test sees first.
Source: spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from msgtrace.api.descriptions import FIELDS, PARAMETERS
from msgtrace.api.docs_page import render_page
from msgtrace.api.operations import (
    OPERATIONS,
    RAW_FIELDS,
    Documented,
    ErrorReply,
    ReadyReply,
)
from msgtrace.telemetry.metrics import VERSION

_REF = "#/components/schemas/{name}"

_STATUS_TEXTS = {
    200: "Done.",
    204: "Done; there is nothing more to say.",
    400: "A parameter is unknown or wrong.",
    404: "What the path names is not stored.",
    503: "The database does not answer, or the read ran too long. Ask again after Retry-After.",
}

_ABOUT = """\
Ids are lowercase hex, times are given as RFC 3339 and as Unix nanoseconds, durations are
milliseconds. Every error is an object with one sentence. An unknown parameter is refused, so that a
misspelt filter never looks like a result. OTLP comes in on ports of its own, and with
`msgtrace start` also by POST to /v1/traces here."""

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Undocumented(LookupError):
    """A route, parameter or field has no text; the message says where it belongs."""


async def get_openapi(request: Request) -> Response:
    """GET /openapi.json"""
    return Response(_document_bytes(_routes(request)), media_type="application/json")


async def get_docs(request: Request) -> Response:
    """GET /docs"""
    page = _page(_routes(request))
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return Response(page, headers=headers, media_type="text/html")


def build_document(routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The description of these (method, path) pairs. Raises Undocumented."""
    paths: dict[str, dict[str, Any]] = {}
    documented: list[Documented] = []
    for method, path in routes:
        operation = OPERATIONS.get((method, path))
        if operation is None:
            raise Undocumented(
                f"{method} {path} is not described:"
                " add it to OPERATIONS in msgtrace/api/operations.py"
            )
        documented.append(operation)
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "msgtrace query API", "version": VERSION, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": _schemas(documented)},
    }


def _operation(method: str, path: str, operation: Documented) -> dict[str, Any]:
    description = {
        "operationId": _operation_id(method, path),
        "summary": operation.summary,
        "parameters": [_parameter(name, path) for name in operation.parameters],
        "responses": _responses(operation),
    }
    if operation.description:
        description["description"] = operation.description
    return description


def _operation_id(method: str, path: str) -> str:
    words = [word.strip("{}") for word in path.split("/") if word]
    return "_".join([method.lower(), *words]).replace(".", "_")


def _parameter(name: str, path: str) -> dict[str, Any]:
    if name not in PARAMETERS:
        raise Undocumented(
            f"the parameter {name} is not described:"
            " add it to PARAMETERS in msgtrace/api/descriptions.py"
        )
    schema, text = PARAMETERS[name]
    is_in_path = f"{{{name}}}" in path
    described = {
        "name": name,
        "in": "path" if is_in_path else "query",
        "required": is_in_path,
        "description": text,
        "schema": dict(schema),
    }
    if schema.get("type") == "array":
        described |= {"style": "form", "explode": True}
    return described


def _responses(operation: Documented) -> dict[str, Any]:
    success: dict[str, Any] = {"description": _STATUS_TEXTS[operation.status]}
    if operation.reply is not None:
        success["content"] = _json_content(operation.reply)
    elif operation.media_types:
        success["content"] = {media_type: {} for media_type in operation.media_types}
    if operation.headers:
        success["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in operation.headers.items()
        }
    responses = {str(operation.status): success}
    for status in operation.statuses:
        responses[str(status)] = {
            "description": _STATUS_TEXTS[status],
            "content": _json_content(ErrorReply),
        }
    if operation.reply is ReadyReply:
        responses["503"] = success | {"description": "It cannot."}
    return responses


def _json_content(reply: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=reply.__name__)}}}


def _schemas(operations: Iterable[Documented]) -> dict[str, Any]:
    """The replies and all that is in them, each field with its text."""
    replies = {each.reply for each in operations if each.reply is not None}
    in_raw = {kind for kind in RAW_FIELDS.values() if isinstance(kind, type)}
    kinds = sorted(replies | in_raw | {ErrorReply}, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    for name, schema in schemas.items():
        for field, described in schema.get("properties", {}).items():
            if not described and field in RAW_FIELDS:
                described.update(_raw_schema(field))
            described["description"] = _field_text(name, field)
    return schemas


def _raw_schema(field: str) -> Mapping[str, Any]:
    kind = RAW_FIELDS[field]
    if not isinstance(kind, type):
        return kind
    return {"type": "array", "items": {"$ref": _REF.format(name=kind.__name__)}}


def _field_text(struct: str, field: str) -> str:
    text = FIELDS.get(f"{struct}.{field}") or FIELDS.get(field)
    if text is None:
        raise Undocumented(
            f"the field {struct}.{field} is not described:"
            " add it to FIELDS in msgtrace/api/descriptions.py"
        )
    return text


def _routes(request: Request) -> tuple[tuple[str, str], ...]:
    routes: tuple[tuple[str, str], ...] = request.app.state.documented_routes
    return routes


@lru_cache(maxsize=1)
def _document_bytes(routes: tuple[tuple[str, str], ...]) -> bytes:
    return msgspec.json.encode(build_document(routes))


@lru_cache(maxsize=1)
def _page(routes: tuple[tuple[str, str], ...]) -> str:
    return render_page(build_document(routes))
