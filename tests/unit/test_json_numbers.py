"""Numbers of OTLP/JSON attributes: JavaScript's exporter calls every whole number an integer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from msgtrace.errors import MalformedRequest
from msgtrace.model.span import SPAN_COLUMNS
from msgtrace.otlp.json import decode_export_json

ATTRIBUTE = {"key": "n", "value": {"intValue": "THE NUMBER"}}


def decode(int_value: str) -> Any:
    """The stored attribute; int_value is JSON text."""
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "attributes": [ATTRIBUTE]}
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    batch = decode_export_json(json.dumps(request).replace('"THE NUMBER"', int_value).encode())
    [row] = batch.spans
    return json.loads(row[SPAN_COLUMNS.index("attributes")])["n"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("42", 42),
        ('"42"', 42),
        ("4.2e1", 42),
        (f'"{"0" * 40}9007199254740991"', 9007199254740991),
        (f'"-{"0" * 40}9223372036854775807"', {"$int": "-9223372036854775807"}),
        ("9223372036854775807", {"$int": "9223372036854775807"}),
        ("-9223372036854775808", {"$int": "-9223372036854775808"}),
        ("9223372036854775808", 2.0**63),
        ("100000000000000000000", 1e20),
        ("-1e21", -1e21),
        ("1.7976931348623157e308", 1.7976931348623157e308),
    ],
)
def test_a_whole_number_beyond_int64_is_a_double(sent: str, stored: Any) -> None:
    decoded = decode(sent)

    assert decoded == stored
    assert type(decoded) is type(stored)


@pytest.mark.parametrize("sent", ['"9223372036854775808"', "4.5", "9" * 400, "1e400", "true"])
def test_what_is_neither_integer_nor_double_is_refused(sent: str) -> None:
    with pytest.raises(MalformedRequest):
        decode(sent)
