"""Export requests of any content, made from the descriptors: new fields come in at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from msgtrace.model.genai import ALIASES
from msgtrace.model.span import SPAN_ID_BYTES, TRACE_ID_BYTES

MAX_REPEATED = 3

_KNOWN_KEYS = sorted(name for names in ALIASES.values() for name in names)

texts = st.one_of(st.text(max_size=8), st.text(alphabet='\0␀\\u0"a$', max_size=6))
keys = st.one_of(texts, st.sampled_from(["", "$map", "$int", "service.name", *_KNOWN_KEYS]))


def _ids(size: int) -> st.SearchStrategy[bytes]:
    few = st.sampled_from([bytes([n]) * size for n in range(4)])  # so that spans share traces
    return st.one_of(few, st.binary(min_size=size, max_size=size), st.binary(max_size=size + 1))


_IDS = {
    "trace_id": _ids(TRACE_ID_BYTES),
    "span_id": _ids(SPAN_ID_BYTES),
    "parent_span_id": _ids(SPAN_ID_BYTES),
}


def _integers(least: int, greatest: int) -> st.SearchStrategy[int]:
    edges = st.sampled_from([least, greatest, 0, 1, 2**31 - 1])
    return st.one_of(edges, st.integers(least, greatest))


_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: texts,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_INT32: _integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_ENUM: _integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: _integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: _integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: _integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: _integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: _integers(0, 2**64 - 1),
}


def _scalar_values() -> st.SearchStrategy[AnyValue]:
    kinds = [
        st.builds(AnyValue, **{field.name: _SCALARS[field.type]})
        for field in AnyValue.DESCRIPTOR.fields
        if field.type != FieldDescriptor.TYPE_MESSAGE
    ]
    return st.one_of(st.builds(AnyValue), *kinds)


def _pairs(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[list[KeyValue]]:
    pair = st.one_of(
        st.builds(KeyValue, key=keys, value=values),
        st.builds(KeyValue, key=keys),
        st.builds(KeyValue, key_strindex=_SCALARS[FieldDescriptor.TYPE_INT32], value=values),
    )
    return st.lists(pair, max_size=4)


def _nested(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    arrays = st.builds(ArrayValue, values=st.lists(values, max_size=4))
    maps = st.builds(KeyValueList, values=_pairs(values))
    return st.one_of(
        st.builds(AnyValue, array_value=arrays), st.builds(AnyValue, kvlist_value=maps)
    )


any_values = st.recursive(_scalar_values(), _nested, max_leaves=8)
attributes = _pairs(any_values)


def _messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    if kind is AnyValue:
        return any_values
    fields = {field.name: st.one_of(st.none(), _values(field)) for field in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries(fields).map(
        lambda given: kind(**{name: value for name, value in given.items() if value is not None})
    )


def _values(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is None:
        one = _IDS.get(field.name, _SCALARS[field.type])
    elif field.message_type.name == KeyValue.DESCRIPTOR.name:
        return attributes
    else:
        one = _messages(GetMessageClass(field.message_type))
    return st.lists(one, max_size=MAX_REPEATED) if field.is_repeated else one


requests: st.SearchStrategy[ExportTraceServiceRequest] = _messages(ExportTraceServiceRequest)  # type: ignore[assignment]  # of that kind


def made_requests(count: int, seed: int) -> list[ExportTraceServiceRequest]:
    """So many of `requests`, the same ones for the same seed."""
    made: list[ExportTraceServiceRequest] = []

    @seeded(seed)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def keep(request: ExportTraceServiceRequest) -> None:
        made.append(request)

    keep()
    return made


def normalize(pairs: Sequence[KeyValue]) -> None:
    """Take away what is not kept.

    The bits of a NaN, an index beside a key, an absent value, and fields that OTLP does not know.
    """
    for pair in pairs:
        pair.value.SetInParent()
        if pair.key:
            pair.key_strindex = 0
        # At every level, as protobuf goes no deeper than 64 at once.
        pair.DiscardUnknownFields()
        _normalize_value(pair.value)


def _normalize_value(value: AnyValue) -> None:
    match value.WhichOneof("value"):
        case "double_value" if math.isnan(value.double_value):
            value.double_value = math.nan
        case "array_value":
            for each in value.array_value.values:
                each.DiscardUnknownFields()
                _normalize_value(each)
        case "kvlist_value":
            normalize(value.kvlist_value.values)
