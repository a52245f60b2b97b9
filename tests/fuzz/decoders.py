"""Whether both decoders make the same of a request, and refuse the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp import native
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from tests.fuzz.batches import DECLINED, NATIVELY, REFUSED, check_batch, summaries

Decode = Callable[[bytes], SpanBatch]


def compare_protobuf(body: bytes) -> str:
    """What became of it. Raises AssertionError if that depends on the decoder."""
    return _compare(decode_export_request, native.decode_natively, body)


def compare_json(body: bytes) -> str:
    """As `compare_protobuf`."""
    return _compare(decode_export_json, native.decode_json_natively, body)


def _compare(python: Decode, natively: Decode, body: bytes) -> str:
    expected, _ = _outcome(python, body)
    found, is_native = _outcome(natively, body)
    differing = [name for name in expected.keys() | found.keys() if _differ(name, expected, found)]
    assert not differing, f"the decoders differ in {sorted(differing)}"
    return REFUSED if "refusal" in expected else NATIVELY if is_native else DECLINED


def _differ(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    return name not in one or name not in other or bool(one[name] != other[name])


def _outcome(decode: Decode, body: bytes) -> tuple[dict[str, Any], bool]:
    """All that a decoder says, but how its rows are encoded, and whether it encoded them."""
    try:
        batch = decode(body)
    except MalformedRequest as refusal:
        return {"refusal": str(refusal)}, False
    check_batch(batch)
    said = {each.name: getattr(batch, each.name) for each in dataclasses.fields(batch)}
    is_native = said.pop("copy_rows") is not None
    del said["join_traces"]
    rows = {"spans": list(batch.spans), "summaries": summaries([batch])}
    # As text, since no NaN equals another.
    return said | rows | {"genai": repr(batch.genai)}, is_native
