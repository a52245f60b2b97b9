"""What was said in a call reads the same, whichever convention wrote it down."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.model.span import JsonText, Span
from msgtrace.query.messages import Conversation, read_conversation
from tests.stored import span_id, stored_span

QUESTION: dict[str, Any] = {"type": "text", "content": "Weather in Natal?"}
CALL: dict[str, Any] = {
    "type": "tool_call",
    "id": "c1",
    "name": "get_weather",
    "arguments": {"city": "Natal"},
}
RESULT: dict[str, Any] = {"type": "tool_call_response", "id": "c1", "result": {"temp_c": 29}}
ANSWER: dict[str, Any] = {"type": "text", "content": "29 °C"}

INPUT: list[tuple[str, dict[str, Any]]] = [
    ("system", {"type": "text", "content": "Be brief."}),
    ("user", QUESTION),
]
INPUT += [("assistant", CALL), ("tool", RESULT)]

CURRENT: dict[str, Any] = {
    "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
    "gen_ai.input.messages": [
        {"role": "user", "parts": [QUESTION]},
        {"role": "assistant", "parts": [CALL]},
        {"role": "tool", "parts": [{**RESULT, "result": '{"temp_c": 29}'}]},
    ],
    "gen_ai.output.messages": [{"role": "assistant", "parts": [ANSWER], "finish_reason": "stop"}],
}

SYSTEM = {"gen_ai.system_instructions": CURRENT["gen_ai.system_instructions"]}

OPENLLMETRY = {
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be brief.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": '[{"type": "text", "text": "Weather in Natal?"}]',
    "gen_ai.prompt.2.role": "assistant",
    "gen_ai.prompt.2.tool_calls.0.id": "c1",
    "gen_ai.prompt.2.tool_calls.0.name": "get_weather",
    "gen_ai.prompt.2.tool_calls.0.arguments": '{"city": "Natal"}',
    "gen_ai.prompt.3.role": "tool",
    "gen_ai.prompt.3.tool_call_id": "c1",
    "gen_ai.prompt.3.content": '{"temp_c": 29}',
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "29 °C",
    "gen_ai.completion.0.finish_reason": "stop",
}

_MESSAGE = "llm.input_messages.{}.message."
OPENINFERENCE = {
    _MESSAGE.format(0) + "role": "system",
    _MESSAGE.format(0) + "content": "Be brief.",
    _MESSAGE.format(1) + "role": "user",
    _MESSAGE.format(1) + "contents.0.message_content.type": "text",
    _MESSAGE.format(1) + "contents.0.message_content.text": "Weather in Natal?",
    _MESSAGE.format(2) + "role": "assistant",
    _MESSAGE.format(2) + "tool_calls.0.tool_call.id": "c1",
    _MESSAGE.format(2) + "tool_calls.0.tool_call.function.name": "get_weather",
    _MESSAGE.format(2) + "tool_calls.0.tool_call.function.arguments": '{"city": "Natal"}',
    _MESSAGE.format(3) + "role": "tool",
    _MESSAGE.format(3) + "tool_call_id": "c1",
    _MESSAGE.format(3) + "content": '{"temp_c": 29}',
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "29 °C",
    "llm.output_messages.0.message.finish_reason": "stop",
    "input.value": "everything again, as one text",
}

EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("gen_ai.system.message", {"content": "Be brief."}),
    ("gen_ai.user.message", {"content": "Weather in Natal?"}),
    (
        "gen_ai.assistant.message",
        {
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Natal"}'},
                }
            ]
        },
    ),
    ("gen_ai.tool.message", {"id": "c1", "content": '{"temp_c": 29}'}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": '{"content": "29 °C"}'}),
    ("exception", {"exception.message": "no message of the conversation"}),
]

OPENAI_JSON = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Natal?"},
    {"role": "assistant", "content": None, "tool_calls": EVENTS[2][1]["tool_calls"]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"temp_c": 29}'},
]
CONTENT_EVENTS = [
    ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps(OPENAI_JSON)}),
    (
        "gen_ai.content.completion",
        {
            "gen_ai.completion": json.dumps(
                [{"role": "assistant", "content": "29 °C", "finish_reason": "stop"}]
            )
        },
    ),
]


def a_span(
    attributes: dict[str, Any], events: list[tuple[str, Any]] | None = None, **fields: Any
) -> Span:
    told = [{"name": name, "attributes": each} for name, each in events or []]
    return stored_span(
        attributes=JsonText(json.dumps(attributes)), events=JsonText(json.dumps(told)), **fields
    )


def read(attributes: dict[str, Any], events: Any = None, *others: Span) -> Conversation:
    span = a_span(attributes, events)
    return read_conversation(span, [span, *others])


def flat(said: Conversation) -> list[tuple[str, dict[str, Any]]]:
    return [(each.role, part) for each in said.input for part in each.parts]


@pytest.mark.parametrize(
    ("attributes", "events"),
    [
        (CURRENT, None),
        ({name: json.dumps(value) for name, value in CURRENT.items()}, None),
        (SYSTEM, [("gen_ai.client.inference.operation.details", CURRENT)]),
        (OPENLLMETRY, None),
        (OPENINFERENCE, None),
        ({}, EVENTS),
        ({}, CONTENT_EVENTS),
        (
            {
                "gen_ai.prompt": json.dumps(OPENAI_JSON),
                "gen_ai.completion": '{"content": "29 °C", "finish_reason": "stop"}',
            },
            None,
        ),
    ],
    ids=[
        "values",
        "json text",
        "details event",
        "openllmetry",
        "openinference",
        "events",
        "content events",
        "sdk",
    ],
)
def test_every_convention_reads_the_same(attributes: dict[str, Any], events: Any) -> None:
    said = read({"gen_ai.operation.name": "chat"} | attributes, events)

    assert flat(said) == INPUT
    assert [(each.role, each.parts, each.finish_reason) for each in said.output] == [
        ("assistant", [ANSWER], "stop")
    ]
    [call] = said.tool_calls
    assert (call.name, call.arguments) == ("get_weather", {"city": "Natal"})
    assert (call.is_answered, call.result) == (True, {"temp_c": 29})


def test_a_call_that_the_conversation_does_not_answer_gets_the_result_of_its_tool_span() -> None:
    tool = {
        "gen_ai.operation.name": "tool",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.response": "29 C",
    }
    asked = {"gen_ai.output.messages": [{"role": "assistant", "parts": [CALL]}]}

    said = read(asked, None, a_span(tool, span_id=span_id(7)))

    [call] = said.tool_calls
    assert (call.is_answered, call.result, call.span_id) == (True, "29 C", span_id(7))


def test_calls_without_ids_are_answered_in_order() -> None:
    def call(city: str) -> dict[str, Any]:
        return {"type": "tool_call", "name": "get_weather", "arguments": {"city": city}}

    def response(result: int) -> dict[str, Any]:
        return {"type": "tool_call_response", "result": result}

    said = read(
        {
            "gen_ai.input.messages": [
                {"role": "assistant", "parts": [call("Natal"), call("Rio")]},
                {"role": "tool", "parts": [response(29), response(31)]},
            ],
            "gen_ai.output.messages": [{"role": "assistant", "parts": [call("Recife")]}],
        }
    )

    assert [(each.arguments["city"], each.result) for each in said.tool_calls] == [
        ("Natal", 29),
        ("Rio", 31),
        ("Recife", None),
    ]
    assert not said.tool_calls[-1].is_answered


def test_a_tool_span_reads_as_its_call_and_its_answer() -> None:
    said = read(
        {
            "openinference.span.kind": "TOOL",
            "tool.name": "get_weather",
            "tool.parameters": '{"city": "Natal"}',
            "output.value": '{"temp_c": 29}',
        }
    )

    assert flat(said) == [("assistant", CALL | {"id": None})]
    assert said.output[0].parts == [RESULT | {"id": None}]


def test_what_no_convention_names_is_kept_as_it_is() -> None:
    image = {"type": "blob", "mime_type": "image/png", "content": "aGk="}
    parts = [image, {"type": "reasoning", "content": "hm"}]
    said = read({"gen_ai.input.messages": [{"role": "user", "parts": parts}, "plain"]})

    assert flat(said) == [
        ("user", image),
        ("user", {"type": "reasoning", "content": "hm"}),
        ("user", {"type": "text", "content": "plain"}),
    ]


def test_a_span_without_messages_has_an_empty_conversation() -> None:
    said = read({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"})

    assert said.is_empty
    assert said.tool_calls == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "parts", "content", "type", "message", "tool_calls", "function", "0", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
names = st.sampled_from([*CURRENT, *OPENLLMETRY, *OPENINFERENCE, "gen_ai.prompt", "tool.name"])


@given(st.dictionaries(names, values, max_size=6), st.lists(values, max_size=2))
def test_whatever_is_sent_can_be_shown(attributes: dict[str, Any], told: list[Any]) -> None:
    events = [("gen_ai.choice", {"message": each, "tool_calls": each}) for each in told]

    said = read(attributes, events)

    json.dumps([[each.parts for each in (*said.input, *said.output)], said.tool_definitions])
