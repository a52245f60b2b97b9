"""The encodings by name: how a request that was put aside is decoded again as it once was."""

from __future__ import annotations

from collections.abc import Callable

from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json

PROTOBUF = "protobuf"
JSON = "json"

_DECODERS: dict[str, Callable[[bytes], SpanBatch]] = {
    PROTOBUF: decode_export_request,
    JSON: decode_export_json,
}


def decode_as(encoding: str, payload: bytes) -> SpanBatch:
    """The batch of an inflated request, with the request in it.

    encoding: PROTOBUF or JSON. Raises MalformedRequest for bytes that are nothing of the kind.
    """
    batch = _DECODERS[encoding](payload)
    batch.payload, batch.encoding = payload, encoding
    return batch
