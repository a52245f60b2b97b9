"""What was acknowledged from the spill is never dropped for want of room for dead letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from msgtrace.pipeline.batcher import Batcher
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.pipeline.drain import drain_group
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import SpilledRequest
from msgtrace.telemetry.collector_metrics import SpillMetrics
from tests.batches import request, span
from tests.letters import MemoryLetters, PickyWriter


@pytest.mark.parametrize("has_room", [True, False])
async def test_a_spilled_request_leaves_the_spill_only_for_the_database_or_a_dead_letter(
    tmp_path: Path, has_room: bool
) -> None:
    bodies = [request(span(name), span(f"{name} too")) for name in ("good", "poison", "fine")]
    spilled = [
        SpilledRequest(
            payload=body.SerializeToString(), encoding="protobuf", span_count=2, received_at_ns=1
        )
        for body in bodies
    ]
    writer, letters = PickyWriter({"poison"}), MemoryLetters()
    keeper = DeadLetterKeeper(letters, max_bytes=10_000 if has_room else 0)
    async with (
        Spill.open(tmp_path, 1_000_000) as spill,
        Batcher(writer, max_batch_bytes=1_000, max_queued_bytes=9_000, keeper=keeper) as batcher,
    ):
        await spill.append(spilled)

        await drain_group(spill, batcher, SpillMetrics(), 1_000_000)

        assert sorted(writer.stored) == ["fine", "fine too", "good", "good too", "poison too"]
        assert spill.content.requests == 0
        assert spill.content.set_aside == (0 if has_room else 1)
        assert len(letters.kept) == (1 if has_room else 0)
