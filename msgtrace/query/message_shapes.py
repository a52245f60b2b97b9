"""The shapes in which conventions write a message, read into (role, parts, finish reason).

Pure. Whatever is not as expected is kept as it is, as text or under the sender's own type: a view
must not fail for what some instrumentor made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

ReadMessage = tuple[str, list[dict[str, Any]], str | None]

_TEXT_TYPES = frozenset(("text", "input_text", "output_text"))
_REASONING_TYPES = frozenset(("reasoning", "thinking"))
_RESPONSE_TYPES = frozenset(("tool_call_response", "tool_result"))
_CALL_TYPES = frozenset(("tool_call", "tool_use", "function"))


def decoded(attributes: str) -> dict[str, Any]:
    """Attributes as stored, without the tags that only JSON needs (`otlp.values`)."""
    plain: dict[str, Any] = _untagged(msgspec.json.decode(attributes))
    return plain


def as_value(value: Any) -> Any:
    """The value of a JSON text that is an object or an array; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value


def read_messages(value: Any, role: str) -> list[ReadMessage]:
    """Messages from a list of them, one of them, or a text. role: of those that name none."""
    value = as_value(value)
    if value is None or value == "":
        return []
    if isinstance(value, list):
        return [read_message(each, role) for each in value]
    return [read_message(value, role)]


def read_message(value: Any, role: str) -> ReadMessage:
    """One message, in any shape."""
    value = as_value(value)
    if not isinstance(value, dict):
        return role, [_text(value)], None
    value = _unwrapped(value)
    said_role = value.get("role") if isinstance(value.get("role"), str) else None
    reason = value.get("finish_reason")
    parts = [*_reasoning(value), *_content(value, said_role or role), *_calls(value)]
    return said_role or role, parts, reason if isinstance(reason, str) and reason else None


def from_index(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """`prefix.N.a.b` attributes as one nested object for each N, in the order of N."""
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        if name.startswith(prefix):
            *way, last = name.removeprefix(prefix).split(".")
            at: Any = tree
            for step in way:
                at = at.setdefault(step, {})
                if not isinstance(at, dict):
                    break
            else:
                at[last] = value
    return [each for each in _in_order(tree) if isinstance(each, dict)]


def tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """A part that calls a tool."""
    return {
        "type": "tool_call",
        "id": call_id if isinstance(call_id, str) and call_id else None,
        "name": name if isinstance(name, str) else None,
        "arguments": as_value(arguments),
    }


def tool_response(call_id: Any, result: Any) -> dict[str, Any]:
    """A part that answers a tool call."""
    return {
        "type": "tool_call_response",
        "id": call_id if isinstance(call_id, str) and call_id else None,
        "result": as_value(result),
    }


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """A choice event holds its message in a field, as JSON text."""
    inner = as_value(value.get("message"))
    return value | inner if isinstance(inner, dict) else value


def _content(value: dict[str, Any], role: str) -> list[dict[str, Any]]:
    parts = value.get("parts", value.get("contents", value.get("content")))
    call_id = value.get("tool_call_id", value.get("id") if role == "tool" else None)
    if role == "tool" and "parts" not in value and (call_id is not None or parts is not None):
        return [tool_response(call_id, parts)]
    parts = as_value(parts)
    if parts is None or parts == "":
        return []
    if isinstance(parts, dict) and all(key.isdigit() for key in parts):
        parts = _in_order(parts)
    return [_part(each) for each in (parts if isinstance(parts, list) else [parts])]


def _part(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return _text(value)
    value = _inner(value, "message_content")  # OpenInference
    kind = str(value.get("type", "text"))
    if kind in _CALL_TYPES:
        return _call(value)
    if kind in _RESPONSE_TYPES:
        call_id = value.get("id", value.get("tool_use_id"))
        return tool_response(call_id, _any(value, "result", "response", "content"))
    content = _any(value, "content", "text", "thinking")
    if kind in _TEXT_TYPES and content is not None:
        return _text(content)
    if kind in _REASONING_TYPES and content is not None:
        return {"type": "reasoning", "content": content}
    return {"type": kind} | {name: each for name, each in value.items() if name != "type"}


def _calls(value: dict[str, Any]) -> list[dict[str, Any]]:
    calls = as_value(value.get("tool_calls"))
    if isinstance(calls, dict):
        calls = _in_order(calls)
    if not isinstance(calls, list):
        return []
    return [_call(each) for each in calls if isinstance(each, dict)]


def _call(value: dict[str, Any]) -> dict[str, Any]:
    value = _inner(value, "tool_call")  # OpenInference
    function = value.get("function")
    named = function if isinstance(function, dict) else value
    return tool_call(value.get("id"), named.get("name"), _any(named, "arguments", "input"))


def _reasoning(value: dict[str, Any]) -> list[dict[str, Any]]:
    content = _any(value, "reasoning_content", "reasoning")
    return [{"type": "reasoning", "content": content}] if isinstance(content, str) else []


def _inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else value


def _text(value: Any) -> dict[str, Any]:
    return {"type": "text", "content": value}


def _any(value: Mapping[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _in_order(indexed: Mapping[str, Any]) -> list[Any]:
    numbers = sorted((key for key in indexed if key.isdigit()), key=int)
    return [indexed[key] for key in numbers]


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        match value:
            case {"$int": str(digits)}:
                return int(digits)
            case {"$map": list(pairs)}:
                return {str(key): _untagged(each) for key, each in pairs}
    return {key: _untagged(each) for key, each in value.items()}
