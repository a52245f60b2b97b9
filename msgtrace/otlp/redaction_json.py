"""`otlp.redaction` of OTLP/JSON, on the document: the structs of `otlp.json_messages` read only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from msgtrace.errors import MalformedRequest
from msgtrace.otlp.json import plain_value, with_characters_only
from msgtrace.otlp.json_messages import AnyValue
from msgtrace.otlp.redaction import SERVICE_NAME, STATUS_MESSAGE, Redaction, Redactor


def redact_json(body: bytes, redaction: Redaction) -> tuple[bytes, Counter[str]]:
    """An OTLP/JSON request without what is redacted, and how many values, by action.

    It is the same object if nothing is. Raises MalformedRequest for what cannot be looked through.
    """
    try:
        return _redact(body, redaction)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise MalformedRequest("the body is not OTLP/JSON") from error


def _redact(body: bytes, redaction: Redaction) -> tuple[bytes, Counter[str]]:
    count: Counter[str] = Counter()
    document = _read(body)
    for envelope in _objects(document, "resourceSpans"):
        resource = _object(envelope, "resource")
        service = next(
            (
                str(value["stringValue"])
                for pair in _objects(resource, "attributes")
                if pair.get("key") == SERVICE_NAME
                and isinstance(value := pair.get("value"), dict)
                and isinstance(value.get("stringValue"), str)
            ),
            "",
        )
        redact = _JsonRedactor(Redactor(redaction, service, count))
        redact.pairs(resource)
        for scope_spans in _objects(envelope, "scopeSpans"):
            redact.pairs(_object(scope_spans, "scope"))
            for span in _objects(scope_spans, "spans"):
                redact.span(span)
    return (msgspec.json.encode(document) if count else body), count


def _read(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(with_characters_only(body))


class _JsonRedactor:
    """Of the attributes of one service, in a JSON document."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def span(self, span: dict[str, Any]) -> None:
        """A span with its events, its links and its status."""
        for part in (span, *_objects(span, "events"), *_objects(span, "links")):
            self.pairs(part)
        status = _object(span, "status")
        if message := status.get("message"):
            said = self._redactor.text(STATUS_MESSAGE, message)
            status["message"] = message if said is None else said

    def pairs(self, holder: Mapping[str, Any]) -> None:
        """The attributes of `holder`, and the maps within their values."""
        waiting = list(_objects(holder, "attributes"))
        while waiting:
            pair = waiting.pop()
            value = pair.get("value")
            if not isinstance(value, dict):
                continue
            key = str(pair.get("key") or "")
            if not self._redactor.concerns(key):
                waiting += _pairs_within(value)
                continue
            plain = plain_value(msgspec.convert(value, AnyValue))
            if (said := self._redactor.text(key, plain)) is not None:
                pair["value"] = {"stringValue": said}


def _pairs_within(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        at = waiting.pop()
        yield from _objects(_object(at, "kvlistValue"), "values")
        waiting += _objects(_object(at, "arrayValue"), "values")


def _objects(holder: Any, name: str) -> list[dict[str, Any]]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}
