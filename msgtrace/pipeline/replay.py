"""Store the refused spans of a dead letter again, once the cause is mended.

Path: storage → otlp.encodings → [pipeline.replay] → storage.
Only the spans that were refused: the others of the request are stored, or were deleted since.
Interrupted at any moment, it can be done again: spans are known by their ids.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from msgtrace.errors import MalformedRequest, Unavailable
from msgtrace.model.batch import SpanBatch, take_spans
from msgtrace.model.dead_letter import DeadLetter, SpanIds, ids_of
from msgtrace.otlp.encodings import decode_as
from msgtrace.otlp.rules import DEFAULT_RULES, DecodeRules
from msgtrace.pipeline.isolate import store_all_but_refused
from msgtrace.storage.protocol import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of a letter. It is gone unless spans of it were refused again, then for `reason`.

    known_spans: had been stored since.
    """

    new_spans: int = 0
    known_spans: int = 0
    refused_spans: int = 0
    reason: str = ""


async def replay_letter(
    storage: Storage, letter: DeadLetter, rules: DecodeRules = DEFAULT_RULES
) -> Replayed:
    """Store what can be stored of a letter; delete it, or keep what is refused again.

    Raises Unavailable; the letter is then as it was.
    """
    try:
        batch = refused_part(letter, rules)
    except MalformedRequest as error:
        return Replayed(refused_spans=len(letter.spans), reason=str(error))
    left: list[SpanIds] = []
    reason = ""
    try:
        new_spans = await storage.write_spans([batch])
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours is a refusal, as it was at first
        # Nobody waits: as many writes as it takes.
        isolated = await store_all_but_refused(
            storage.write_spans, batch, error, max_writes=2 * len(batch.spans), max_s=math.inf
        )
        left = [ids_of(batch.spans[position]) for position in isolated.refused]
        new_spans, reason = isolated.new_spans, isolated.reason
    if left:
        kept = dataclasses.replace(letter, reason=reason, spans=left)
        await storage.dead_letters.keep(kept, max_bytes=0)  # needs no more room than it has
    else:
        await storage.dead_letters.delete(letter.tenant_id, letter.letter_id)
    return Replayed(
        new_spans=new_spans,
        known_spans=len(batch.spans) - len(left) - new_spans,
        refused_spans=len(left),
        reason=reason if left else "",
    )


def refused_part(letter: DeadLetter, rules: DecodeRules = DEFAULT_RULES) -> SpanBatch:
    """The spans of the letter that were refused, as the receivers once decoded them.

    Raises MalformedRequest if they are not in its request any more, as this program reads it.
    """
    batch = decode_as(letter.encoding, letter.payload, rules)
    wanted = set(letter.spans)
    found = [position for position, row in enumerate(batch.spans) if ids_of(row) in wanted]
    if len(found) < len(letter.spans):
        raise MalformedRequest("the refused spans are not found in the request")
    return take_spans(batch, found)
