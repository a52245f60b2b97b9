"""Take the values of named attributes out of a request, before anything else sees it.

Path: receivers → [otlp.redaction] → otlp.decode → pipeline → storage. Bytes in, bytes out: what was
taken out is nowhere afterwards, also not in the request that a spill or a dead letter keeps.
Attributes of resources, scopes, spans, events and links, the keys of maps within values too, in
both encodings; and a span's status message, under the key `@status_message`.
Doing it twice changes nothing, so that a spilled request may be decoded again.
Keys stay, so that a reader sees that something was there.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from msgtrace.errors import MalformedRequest
from msgtrace.otlp.lenient import repair_text
from msgtrace.otlp.values import plain_value

DROPPED = "[redacted]"
"""What stands for a dropped value."""

STATUS_MESSAGE = "@status_message"

HASH_DIGITS = 32

_HASHED = re.compile(rf"hmac-sha256:[0-9a-f]{{{HASH_DIGITS}}}")
_RULE = re.compile(r"(keep|drop|hash)\s+(\S+)(?:\s+in\s+(\S+))?")
_MAX_KNOWN = 10_000

SERVICE_NAME = "service.name"


class Action(Enum):
    """What becomes of a value."""

    KEEP = "keep"
    DROP = "drop"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Rule:
    """key, service: patterns as of a shell (`gen_ai.*.messages`), case and all."""

    action: Action
    key: str
    service: str = "*"


def parse_rule(text: str) -> Rule:
    """A rule such as `drop gen_ai.input.messages` or `hash user.id in billing-*`.

    Raises ValueError, naming the rule.
    """
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not ACTION KEY or ACTION KEY in SERVICE; actions are keep, drop and hash"
        )
    action, key, service = match.groups()
    return Rule(Action(action), key, service or "*")


class Redaction:
    """Rules in order: the first that names a key, of that service, decides; no rule is keep.

    secret: the key of the hashes, without which nobody can tell them from a dictionary of values.
    """

    def __init__(self, rules: Sequence[Rule], secret: bytes = b"") -> None:
        self._rules = rules
        self._secret = secret
        self._known: dict[tuple[str, str], Action] = {}

    def action_for(self, service: str, key: str) -> Action:
        """What becomes of the values of a key."""
        known = self._known.get((service, key))
        if known is None:
            if len(self._known) >= _MAX_KNOWN:  # keys are made up by senders
                self._known.clear()
            known = self._known[service, key] = self._decide(service, key)
        return known

    def replacement(self, action: Action, plain: Any) -> str | None:
        """What stands for a value; None for one that is as it should be already."""
        if plain is None or action is Action.KEEP:
            return None
        if action is Action.DROP:
            return None if plain == DROPPED else DROPPED
        if isinstance(plain, str) and _HASHED.fullmatch(plain):
            return None
        content = plain.encode() if isinstance(plain, str) else msgspec.json.encode(plain)
        digest = hmac.new(self._secret, content, hashlib.sha256).hexdigest()
        return f"hmac-sha256:{digest[:HASH_DIGITS]}"

    def _decide(self, service: str, key: str) -> Action:
        return next(
            (
                rule.action
                for rule in self._rules
                if fnmatch.fnmatchcase(key, rule.key) and fnmatch.fnmatchcase(service, rule.service)
            ),
            Action.KEEP,
        )


def redact_request(body: bytes, redaction: Redaction) -> tuple[bytes, Counter[str]]:
    """A protobuf request without what is redacted, and how many values, by action.

    It is the same object if nothing is. Raises MalformedRequest.
    """
    request = _parse(body)
    count: Counter[str] = Counter()
    for envelope in request.resource_spans:
        resource = envelope.resource.attributes
        service = next((p.value.string_value for p in resource if p.key == SERVICE_NAME), "")
        redact = Redactor(redaction, service, count)
        redact.pairs(resource)
        for scope_spans in envelope.scope_spans:
            redact.pairs(scope_spans.scope.attributes)
            for span in scope_spans.spans:
                redact.pairs(span.attributes)
                for event in span.events:
                    redact.pairs(event.attributes)
                for link in span.links:
                    redact.pairs(link.attributes)
                if message := span.status.message:
                    said = redact.text(STATUS_MESSAGE, message)
                    span.status.message = message if said is None else said
    return (request.SerializeToString() if count else body), count


def _parse(body: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        pass
    try:
        return ExportTraceServiceRequest.FromString(repair_text(body))
    except DecodeError as error:
        raise MalformedRequest("the body is not an ExportTraceServiceRequest") from error


class Redactor:
    """Applies the rules to one service's attributes, and counts in `count`."""

    def __init__(self, redaction: Redaction, service: str, count: Counter[str]) -> None:
        self._redaction = redaction
        self._service = service
        self._count = count

    def concerns(self, key: str) -> bool:
        """Whether a rule takes values of the key away."""
        return self._redaction.action_for(self._service, key) is not Action.KEEP

    def text(self, key: str, plain: Any) -> str | None:
        """What stands for the value of a key from now on; None if it stays."""
        action = self._redaction.action_for(self._service, key)
        said = self._redaction.replacement(action, plain)
        if said is not None:
            self._count[action.value] += 1
        return said

    def pairs(self, pairs: Sequence[KeyValue]) -> None:
        """Attributes, and the maps within their values."""
        waiting = list(pairs)
        while waiting:
            pair = waiting.pop()
            if self.concerns(pair.key):
                said = self.text(pair.key, plain_value(pair.value))
                if said is not None:
                    pair.value.string_value = said
            elif not pair.value.string_value:
                waiting += _pairs_within(pair.value)


def _pairs_within(value: AnyValue) -> Iterator[KeyValue]:
    waiting = [value]
    while waiting:
        at = waiting.pop()
        kind = at.WhichOneof("value")
        if kind == "kvlist_value":
            yield from at.kvlist_value.values
        elif kind == "array_value":
            waiting += at.array_value.values
