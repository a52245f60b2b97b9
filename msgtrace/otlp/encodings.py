"""The encodings by name, and what decodes each, also a request that was put aside before.

Path: receivers, pipeline → [otlp.encodings] → otlp.redaction → otlp.decode, otlp.native, otlp.json.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from msgtrace.errors import InvalidSetting
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.otlp.redaction import Redaction, redact_request
from msgtrace.otlp.redaction_json import redact_json
from msgtrace.otlp.rules import DEFAULT_RULES, DecodeRules

PROTOBUF = "protobuf"
JSON = "json"

logger = logging.getLogger(__name__)

Decode = Callable[..., SpanBatch]

_PYTHON: dict[str, Decode] = {
    PROTOBUF: decode_export_request,
    JSON: decode_export_json,
}
_DECODERS = dict(_PYTHON)

_PANIC = "PanicException"
"""PyO3 has no module to import it from."""

_REDACTORS: dict[str, Callable[[bytes, Redaction], tuple[bytes, Mapping[str, int]]]] = {
    PROTOBUF: redact_request,
    JSON: redact_json,
}


def decode_as(encoding: str, payload: bytes, rules: DecodeRules = DEFAULT_RULES) -> SpanBatch:
    """The batch of an inflated request, and in it the request, as it may be kept.

    encoding: PROTOBUF or JSON. Raises MalformedRequest for bytes that are nothing of the kind.
    """
    redacted: Mapping[str, int] = {}
    if rules.redaction is not None:
        payload, redacted = _REDACTORS[encoding](payload, rules.redaction)
    batch = _DECODERS[encoding](payload, prices=rules.prices)
    batch.payload, batch.encoding, batch.redacted = payload, encoding, redacted
    return batch


def use_decoder(wanted: str) -> str:
    """Choose what decodes requests in this process; return which it is: python or native.

    wanted: `auto`, `python` or `native`. Both make the same batches, and where the native one
    panics Python's takes its place. Raises InvalidSetting if `native` cannot be had; `auto` goes on
    without, and warns where it is there, but of another release.
    """
    _DECODERS.update(_PYTHON)
    if wanted == "python":
        return "python"
    try:
        native = importlib.import_module("msgtrace.otlp.native")
    except ImportError as error:
        if wanted == "auto":
            if not isinstance(error, ModuleNotFoundError):
                logger.warning("native_decoder_unfit", extra={"detail": str(error)})
            return "python"
        problem = f"is native, which cannot be loaded ({error}): install msgtrace[native]"
        raise InvalidSetting("MSGTRACE_DECODER", problem) from error
    _DECODERS.update(
        {
            PROTOBUF: _or_python(native.decode_natively, decode_export_request),
            JSON: _or_python(native.decode_json_natively, decode_export_json),
        }
    )
    return "native"


def _or_python(native: Decode, python: Decode) -> Decode:
    """What `native` makes, or `python` where that panics: a fault of ours, and not the sender's."""

    def decode(body: bytes, **rules: Any) -> SpanBatch:
        try:
            return native(body, **rules)
        except BaseException as error:  # PyO3's is no Exception, and would leave a call unanswered
            if type(error).__name__ != _PANIC:
                raise
            # Without its text, which may quote what was sent.
            logger.error("native_decoder_panicked", extra={"body_bytes": len(body)})
        return python(body, **rules)

    return decode
