"""What is redacted is nowhere in the batch, in either encoding; everything else is as it was."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.errors import InvalidSetting
from msgtrace.model.batch import SpanBatch
from msgtrace.model.span import SPAN_COLUMNS
from msgtrace.otlp.encodings import JSON, PROTOBUF, decode_as
from msgtrace.otlp.redaction import Action, Redaction, Rule, parse_rule
from msgtrace.otlp.rules import DecodeRules, read_rules
from msgtrace.settings.table import Settings
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from tests.batches import key_values, request, span
from tests.conformance.json_encoder import to_json

SECRET = b"a secret of enough bytes"
PLAIN = "4111 1111 1111 1111"
ENCODINGS = [PROTOBUF, JSON]


def rules(*texts: str, secret: bytes = SECRET) -> DecodeRules:
    return DecodeRules(redaction=Redaction([parse_rule(text) for text in texts], secret))


def decode(encoding: str, export: ExportTraceServiceRequest, given: DecodeRules) -> SpanBatch:
    body = export.SerializeToString() if encoding == PROTOBUF else to_json(export)
    return decode_as(encoding, body, given)


def everything(batch: SpanBatch) -> str:
    """All that could be stored of a batch, anywhere."""
    stored = [list(batch.spans), batch.resources, batch.scopes, batch.genai, batch.traces]
    return repr(stored) + str(batch.payload)


def attributes_of(batch: SpanBatch, place: int = 0) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(batch.spans[place][SPAN_COLUMNS.index("attributes")])
    return stored


def a_request_full_of(value: Any) -> ExportTraceServiceRequest:
    """A request with the value under the key `card` everywhere where attributes may be."""
    sent = span(
        "pay",
        attributes={
            "card": value,
            "kept": "kept",
            "map": {"card": value, "deep": [{"card": value}, "kept too"]},
            "user.id": "ana",
        },
        status_code=2,
        status_message=f"declined: {value}",
    )
    sent.events.add(name="exception").attributes.extend(key_values({"card": value}))
    sent.links.add(trace_id=b"t" * 16, span_id=b"s" * 8).attributes.extend(
        key_values({"card": value})
    )
    export = request(sent, resource={"card": value})
    export.resource_spans[0].scope_spans[0].scope.attributes.extend(key_values({"card": value}))
    return export


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("action", ["drop", "hash"])
def test_a_redacted_value_is_nowhere_in_the_batch(encoding: str, action: str) -> None:
    given = rules(f"{action} card", f"{action} @status_message")

    batch = decode(encoding, a_request_full_of(PLAIN), given)

    assert PLAIN in everything(decode(encoding, a_request_full_of(PLAIN), DecodeRules()))
    assert PLAIN not in everything(batch)
    assert batch.redacted == {action: 8}
    assert (attributes_of(batch)["kept"], attributes_of(batch)["map"]["deep"][1]) == (
        "kept",
        "kept too",
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "value", ["text", 7, 2**60, 0.5, True, b"bytes", ["a", 1], {"a": {"b": None}}]
)
def test_values_of_every_kind_are_redacted(encoding: str, value: Any) -> None:
    dropped = decode(encoding, request(span(attributes={"card": value})), rules("drop card"))
    hashed = decode(encoding, request(span(attributes={"card": value})), rules("hash card"))

    assert attributes_of(dropped) == {"card": "[redacted]"}
    assert attributes_of(hashed)["card"].startswith("hmac-sha256:")


@pytest.mark.parametrize("value", ["ü", 7, 2**60, 0.5, b"bytes", ["a", 1], {"a": {"b": 1}}])
def test_a_hash_is_the_same_in_both_encodings_and_another_for_another_secret(value: Any) -> None:
    export = request(span(attributes={"card": value}))

    one, other = (attributes_of(decode(e, export, rules("hash card"))) for e in ENCODINGS)
    foreign = attributes_of(decode(PROTOBUF, export, rules("hash card", secret=b"another")))

    assert one == other
    assert one != foreign


def test_the_hash_of_a_text_is_its_hmac() -> None:
    batch = decode(PROTOBUF, request(span(attributes={"user.id": "ana"})), rules("hash user.id"))

    wanted = hmac.new(SECRET, b"ana", hashlib.sha256).hexdigest()[:32]
    assert attributes_of(batch) == {"user.id": f"hmac-sha256:{wanted}"}
    assert [facts.user_id for facts in batch.genai.values()] == [f"hmac-sha256:{wanted}"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_kept_of_the_request_decodes_to_the_same_batch(encoding: str) -> None:
    """So does a spill, whose requests are decoded again when the database is back."""
    given = rules("drop card", "hash user.id", "hash @status_message")

    batch = decode(encoding, a_request_full_of(PLAIN), given)
    again = decode_as(encoding, batch.payload, given)
    without_rules = decode_as(encoding, batch.payload)

    assert again.spans == batch.spans == without_rules.spans
    assert (again.resources, again.scopes) == (batch.resources, batch.scopes)
    assert again.payload == batch.payload
    assert not again.redacted


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_request_that_nothing_is_redacted_in_is_as_it_came(encoding: str) -> None:
    export = a_request_full_of(PLAIN)
    plain = decode(encoding, export, DecodeRules())

    batch = decode(encoding, export, rules("drop other.*", "drop card in other-service"))

    assert batch == plain


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rules_may_be_of_one_service(encoding: str) -> None:
    export = request(span("a", attributes={"card": "a"}), service="bank-1")
    export.MergeFrom(request(span("b", attributes={"card": "b"}), service="shop"))

    batch = decode(encoding, export, rules("drop card in bank-*"))

    assert [attributes_of(batch, place)["card"] for place in (0, 1)] == ["[redacted]", "b"]


def test_the_first_rule_that_matches_decides() -> None:
    redaction = Redaction(
        [
            parse_rule(text)
            for text in ("keep gen_ai.usage.*", "drop gen_ai.* in bank", "hash gen_ai.*")
        ]
    )

    assert redaction.action_for("bank", "gen_ai.usage.input_tokens") is Action.KEEP
    assert redaction.action_for("bank", "gen_ai.prompt") is Action.DROP
    assert redaction.action_for("shop", "gen_ai.prompt") is Action.HASH
    assert redaction.action_for("shop", "GEN_AI.prompt") is Action.KEEP


def test_many_made_up_keys_do_not_fill_the_memory() -> None:
    redaction = Redaction([Rule(Action.DROP, "a")])

    for number in range(25_000):
        redaction.action_for("shop", f"{number}")

    assert len(redaction._known) <= 10_000


@pytest.mark.parametrize(
    "text", ["", "drop", "burn card", "drop card in", "drop a b", "drop a in b c"]
)
def test_a_rule_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"MSGTRACE_REDACT: .*is not ACTION KEY"):
        read_rules(Settings(redact=("drop fine", text)))


def test_a_hash_needs_a_secret_of_some_length(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"0123456789abcde\n")
    good = tmp_path / "good"
    good.write_bytes(b"0123456789abcdef\n")

    for key_file, problem in (
        ("", "must name a file"),
        (str(tmp_path / "none"), "cannot read"),
        (str(short), "at least 16 bytes"),
    ):
        with pytest.raises(InvalidSetting, match=f"MSGTRACE_REDACT_KEY_FILE: .*{problem}"):
            read_rules(Settings(redact=("hash a",), redact_key_file=key_file))
    assert read_rules(Settings(redact=("hash a",), redact_key_file=str(good))).redaction
    assert read_rules(Settings(redact=("drop a",))).redaction
    assert read_rules(Settings()).redaction is None


def test_redacted_values_are_counted_in_metrics() -> None:
    metrics = CollectorMetrics()
    batch = decode(PROTOBUF, a_request_full_of(PLAIN), rules("drop card", "hash user.id"))

    metrics.count_decoded("grpc", batch)

    counted = {
        sample.labels["action"]: sample.value
        for family in metrics._values_redacted.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert counted == {"drop": 7, "hash": 1}


def test_a_lone_surrogate_does_not_keep_a_json_request_from_being_redacted() -> None:
    body = to_json(request(span("NAME", attributes={"card": PLAIN})))

    batch = decode_as(JSON, body.replace(b"NAME", rb"\ud800"), rules("drop card"))

    assert PLAIN not in everything(batch)
    assert len(batch.spans) == 1


def test_an_unset_value_stays_unset() -> None:
    sent: OtlpSpan = span(attributes={"card": None})

    batch = decode(PROTOBUF, request(sent), rules("drop card"))

    assert attributes_of(batch) == {"card": None}
    assert not batch.redacted
