"""What was said to models and tools, beneath their spans in the tree.

Path: cli.replies → query.messages → [cli.messages] → terminal. Only on request: it is what people
wrote. A conversation's history is sent again with every call; what was shown once is not shown
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from rich.console import Console
from rich.text import Text

from msgtrace.cli.render import QUIET_STYLE, print_line
from msgtrace.cli.replies import Span, SpanNode
from msgtrace.cli.text import clean, counted
from msgtrace.model.genai import EMBEDDINGS, INFERENCE, TOOL
from msgtrace.model.span import SpanId
from msgtrace.query.messages import Message, Part, read_conversation

MAX_LINES = 12
"""Lines shown of one part of a message."""

_MAX_LINE_CHARS = 2_000
_ROLE_STYLES = {"user": "cyan", "assistant": "blue", "tool": "green", "system": "magenta"}
_TELLING = frozenset((INFERENCE, EMBEDDINGS, TOOL))


@dataclass(frozen=True, slots=True)
class _Told:
    span_id: SpanId
    attributes: str
    events: str


class TraceMessages:
    """The messages of one trace, each shown where it comes first."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = [_told(span) for span in spans]
        self._shown: set[bytes] = set()

    def print_of(self, console: Console, node: SpanNode, guides: Text) -> None:
        """What a model call or a tool call says; other spans say nothing."""
        if node.operation not in _TELLING:
            return
        said = read_conversation(_told(node.span), self._spans)
        if said.is_empty:
            print_line(console, Text.assemble(guides, ("nothing was recorded", QUIET_STYLE)))
            return
        known = 0
        for message in (*said.input, *said.output):
            key = msgspec.json.encode([message.role, message.parts])
            if key in self._shown:
                known += 1
                continue
            if known:
                self._print_known(console, guides, known)
            known = 0
            self._shown.add(key)
            for line in _lines(message):
                print_line(console, Text.assemble(guides, line))
        if known:
            self._print_known(console, guides, known)

    def _print_known(self, console: Console, guides: Text, count: int) -> None:
        said = f"… {counted(count, 'message')} as above"
        print_line(console, Text.assemble(guides, (said, QUIET_STYLE)))


def _told(span: Span) -> _Told:
    span_id = SpanId(bytes.fromhex(span.span_id))
    return _Told(span_id, bytes(span.attributes).decode(), bytes(span.events).decode())


def _lines(message: Message) -> Iterator[Text]:
    role = clean(message.role, max_chars=20)
    head = Text(f"{role:<10}", style=_ROLE_STYLES.get(message.role, ""))
    for part in message.parts:
        lines = _text_of(part).splitlines() or [""]
        for line in lines[:MAX_LINES]:
            yield Text.assemble(head, clean(line, max_chars=_MAX_LINE_CHARS))
            head = Text(" " * 10)
        if len(lines) > MAX_LINES:
            rest = counted(len(lines) - MAX_LINES, "more line")
            yield Text.assemble(head, (f"… {rest}; --json shows all", QUIET_STYLE))


def _text_of(part: Part) -> str:
    match part:
        case {"type": "text", "content": content}:
            return _as_text(content)
        case {"type": "reasoning", "content": content}:
            return f"(thinks) {_as_text(content)}"
        case {"type": "tool_call", "name": name, "arguments": arguments}:
            return f"→ {name or 'tool'}({_arguments(arguments)})"
        case {"type": "tool_call_response", "result": result}:
            return f"← {_as_text(result)}"
    return f"({part['type']})"


def _arguments(arguments: object) -> str:
    if isinstance(arguments, dict):
        return ", ".join(f"{name}={_json(value)}" for name, value in arguments.items())
    return "" if arguments is None else _as_text(arguments)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
