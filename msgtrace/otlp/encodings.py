"""The encodings by name, and what decodes each, also a request that was put aside before.

Path: receivers, pipeline → [otlp.encodings] → otlp.decode, otlp.native, otlp.json.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from msgtrace.errors import InvalidSetting
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json

PROTOBUF = "protobuf"
JSON = "json"

_PYTHON: dict[str, Callable[[bytes], SpanBatch]] = {
    PROTOBUF: decode_export_request,
    JSON: decode_export_json,
}
_DECODERS = dict(_PYTHON)


def decode_as(encoding: str, payload: bytes) -> SpanBatch:
    """The batch of an inflated request, with the request in it.

    encoding: PROTOBUF or JSON. Raises MalformedRequest for bytes that are nothing of the kind.
    """
    batch = _DECODERS[encoding](payload)
    batch.payload, batch.encoding = payload, encoding
    return batch


def use_decoder(wanted: str) -> str:
    """Choose what decodes requests in this process; return which it is: python or native.

    wanted: `auto`, `python` or `native`. Both make the same batches. Raises InvalidSetting if
    `native` cannot be had.
    """
    _DECODERS.update(_PYTHON)
    if wanted == "python":
        return "python"
    try:
        native = importlib.import_module("msgtrace.otlp.native")
    except ImportError as error:
        if wanted == "auto":
            return "python"
        problem = f"is native, which cannot be loaded ({error}): install msgtrace[native]"
        raise InvalidSetting("MSGTRACE_DECODER", problem) from error
    _DECODERS.update({PROTOBUF: native.decode_natively, JSON: native.decode_json_natively})
    return "native"
