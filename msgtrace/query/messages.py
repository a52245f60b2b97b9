"""What was said in a model call or a tool call, in one form for all conventions.

Path: storage → [query.messages] → api. Pure. Read are, the first that says anything:
`gen_ai.input.messages` and its like, as values or as JSON text, on the span or on an event of it
(current semantic conventions); `gen_ai.prompt.N.content` (OpenLLMetry);
`llm.input_messages.N.message.*` (OpenInference); events such as `gen_ai.user.message`,
`gen_ai.choice` and `gen_ai.content.prompt` (before 1.37); `gen_ai.prompt`, `input.value` and
`traceloop.entity.input` as plain text; arguments and result of a tool.
Not here: which spans are model calls (`model.genai`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from msgtrace.model.genai import TOOL, operation_of
from msgtrace.model.span import SpanId
from msgtrace.query.message_shapes import (
    as_value,
    decoded,
    from_index,
    read_message,
    read_messages,
    tool_call,
    tool_response,
)


class TellingSpan(Protocol):
    """What is read of a span."""

    @property
    def span_id(self) -> SpanId:
        """Its id."""
        ...

    @property
    def attributes(self) -> str:
        """A JSON object, as stored."""
        ...

    @property
    def events(self) -> str:
        """A JSON array, as stored."""
        ...


Part = dict[str, Any]
"""type is text, reasoning, tool_call, tool_call_response, or what the sender calls it.

text, reasoning: content. tool_call: id, name, arguments. tool_call_response: id, result.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. role as sent: system, user, assistant, tool, …"""

    role: str
    parts: list[Part]
    finish_reason: str | None = None


@dataclass(slots=True)
class ToolCall:
    """A tool call, with its result if the conversation or a tool's span in the trace has it.

    span_id: of that span.
    """

    id: str | None
    name: str | None
    arguments: Any
    result: Any = None
    is_answered: bool = False
    span_id: SpanId | None = None


@dataclass(slots=True)
class Conversation:
    """What a span says was said. tool_definitions: as sent, None without any."""

    input: list[Message] = field(default_factory=list)
    output: list[Message] = field(default_factory=list)
    tool_definitions: Any = None
    tool_calls: list[ToolCall] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded, as is the default of most senders."""
        return not (self.input or self.output)


def read_conversation(span: TellingSpan, trace_spans: Sequence[TellingSpan]) -> Conversation:
    """The messages of a span. trace_spans: where results of tool calls may be found."""
    attributes = decoded(span.attributes)
    if operation_of(attributes) == TOOL:
        return _of_tool(span, attributes)
    events: list[dict[str, Any]] = msgspec.json.decode(span.events)
    said = Conversation(
        input=[*_system(attributes), *_side(attributes, events, _INPUT)],
        output=_side(attributes, events, _OUTPUT),
        tool_definitions=_tool_definitions(attributes),
    )
    said.tool_calls = _pair(said, trace_spans)
    return said


@dataclass(frozen=True, slots=True)
class _Side:
    """Where one side of the conversation may stand."""

    role: str
    messages: str
    indexed: str
    openinference: str
    events: tuple[str, ...]
    event_json: str
    plain: tuple[str, ...]


_INPUT = _Side(
    role="user",
    messages="gen_ai.input.messages",
    indexed="gen_ai.prompt.",
    openinference="llm.input_messages.",
    events=(
        "gen_ai.system.message",
        "gen_ai.user.message",
        "gen_ai.assistant.message",
        "gen_ai.tool.message",
    ),
    event_json="gen_ai.prompt",
    plain=("gen_ai.prompt", "input.value", "traceloop.entity.input"),
)
_OUTPUT = _Side(
    role="assistant",
    messages="gen_ai.output.messages",
    indexed="gen_ai.completion.",
    openinference="llm.output_messages.",
    events=("gen_ai.choice",),
    event_json="gen_ai.completion",
    plain=("gen_ai.completion", "output.value", "traceloop.entity.output"),
)


def _side(
    attributes: Mapping[str, Any], events: Sequence[Mapping[str, Any]], side: _Side
) -> list[Message]:
    of_events = [(event["name"], event["attributes"]) for event in events]
    sources = (
        lambda: read_messages(attributes.get(side.messages), side.role),
        lambda: _first(
            read_messages(fields.get(side.messages), side.role) for _, fields in of_events
        ),
        lambda: [read_message(each, side.role) for each in from_index(attributes, side.indexed)],
        lambda: [
            read_message(each.get("message", each), side.role)
            for each in from_index(attributes, side.openinference)
        ],
        lambda: [
            read_message(fields, name.split(".")[1] if side is _INPUT else side.role)
            for name, fields in of_events
            if name in side.events
        ],
        lambda: _first(
            read_messages(fields.get(side.event_json), side.role) for _, fields in of_events
        ),
        lambda: _first(read_messages(attributes.get(name), side.role) for name in side.plain),
    )
    for source in sources:
        messages = [Message(*message) for message in source() if message[1] or message[2]]
        if messages:
            return messages
    return []


def _first(found: Iterable[list[Any]]) -> list[Any]:
    return next(filter(None, found), [])


def _system(attributes: Mapping[str, Any]) -> list[Message]:
    instructions = as_value(attributes.get("gen_ai.system_instructions"))
    if not instructions:
        return []
    parts = instructions if isinstance(instructions, list) else [instructions]
    _, read, _ = read_message({"role": "system", "parts": parts}, "system")
    return [Message("system", read)]


def _tool_definitions(attributes: Mapping[str, Any]) -> Any:
    stated = as_value(attributes.get("gen_ai.tool.definitions"))
    if stated is not None:
        return stated
    functions = from_index(attributes, "llm.request.functions.")
    tools = [
        as_value(each["tool"].get("json_schema"))
        for each in from_index(attributes, "llm.tools.")
        if isinstance(each.get("tool"), dict)
    ]
    return functions or tools or None


def _of_tool(span: TellingSpan, attributes: Mapping[str, Any]) -> Conversation:
    call = ToolCall(
        id=attributes.get("gen_ai.tool.call.id"),
        name=attributes.get("gen_ai.tool.name", attributes.get("tool.name")),
        arguments=_first_value(
            attributes, "gen_ai.tool.call.arguments", "tool.parameters", "input.value"
        ),
        result=tool_result(attributes),
        span_id=span.span_id,
    )
    call.is_answered = call.result is not None
    said = Conversation(tool_calls=[call])
    said.input = [Message("assistant", [tool_call(call.id, call.name, call.arguments)])]
    if call.is_answered:
        said.output = [Message("tool", [tool_response(call.id, call.result)])]
    return said


def tool_result(attributes: Mapping[str, Any]) -> Any:
    """What a tool's span says that the tool returned, None for nothing."""
    return _first_value(
        attributes,
        "gen_ai.tool.call.result",
        "gen_ai.tool.response",
        "output.value",
        "traceloop.entity.output",
    )


def _first_value(attributes: Mapping[str, Any], *names: str) -> Any:
    return next((as_value(attributes[name]) for name in names if name in attributes), None)


def _pair(said: Conversation, trace_spans: Sequence[TellingSpan]) -> list[ToolCall]:
    """Every tool call of the messages with its result: by id or, where there is none, in order."""
    calls = [
        ToolCall(part["id"], part["name"], part["arguments"])
        for message in (*said.input, *said.output)
        for part in message.parts
        if part["type"] == "tool_call"
    ]
    for message in (*said.input, *said.output):
        for part in message.parts:
            if part["type"] == "tool_call_response":
                open_call = next(
                    (each for each in calls if not each.is_answered and each.id == part["id"]),
                    None,
                )
                if open_call is not None:
                    open_call.result, open_call.is_answered = part["result"], True
    by_id = {call.id: call for call in calls if call.id is not None}
    if by_id:
        _pair_with_spans(by_id, trace_spans)
    return calls


def _pair_with_spans(calls: Mapping[str, ToolCall], trace_spans: Sequence[TellingSpan]) -> None:
    for span in trace_spans:
        if "gen_ai.tool.call.id" not in span.attributes:
            continue
        attributes = decoded(span.attributes)
        call = calls.get(str(attributes.get("gen_ai.tool.call.id")))
        if call is None or call.span_id is not None:
            continue
        call.span_id = span.span_id
        if not call.is_answered and (result := tool_result(attributes)) is not None:
            call.result, call.is_answered = result, True
