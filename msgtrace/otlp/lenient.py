"""Repair text in an export request that is not UTF-8.

protobuf refuses the whole request for one such byte. Here it costs U+FFFD in that text, and nothing
else. Only a request that did not parse comes here.
"""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from msgtrace.errors import MalformedRequest
from msgtrace.otlp.v1.lenient_pb2 import ExportTraceServiceRequest


def repair_text(body: bytes) -> bytes:
    """The same ExportTraceServiceRequest with all its text in UTF-8.

    Raises MalformedRequest if text is not what is wrong with it.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise MalformedRequest("the body is not an ExportTraceServiceRequest") from error
    _repair(request)
    repaired: bytes = request.SerializeToString()
    return repaired


def _repair(message: Message) -> None:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for child in value if field.is_repeated else (value,):
                _repair(child)
        elif field.is_repeated:
            value[:] = [_utf8(text) for text in value]
        else:
            setattr(message, field.name, _utf8(value))


def _utf8(text: bytes) -> bytes:
    return text.decode(errors="replace").encode()
