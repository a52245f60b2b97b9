"""The spilling sink and its drain against a model: what is acknowledged is never nowhere.

As `test_batcher_model`, with a real spill file: disks that fail, kills, and starts on the same
folder come on top. A kill leaves the files as they are, and nothing of the process.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from msgtrace.errors import StorageUnavailable
from msgtrace.pipeline.batcher import HOLD_S
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.pipeline.spill import open_spilling_sink
from msgtrace.storage.protocol import StorageAdmin
from msgtrace.storage.spill import Spill
from msgtrace.telemetry.collector_metrics import SpillMetrics
from tests.modelled import PIECE_BYTES
from tests.scratch import folder_in_memory
from tests.spilled import ENOUGH, in_file, payloads, recounted
from tests.stateful import BATCH_BYTES, QUEUED_BYTES, SinkModel, model_settings
from tests.virtual_time import ConnectionInLoop, now_s

GROUP_BYTES = 2 * PIECE_BYTES
CLOSE_S = 5.0


class SpillingModel(SinkModel):
    """One folder, and the collectors that run on it one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = contextlib.ExitStack()
        self.root = self.scratch.enter_context(folder_in_memory())
        self.lives = 0
        self.spill: Spill
        self.stack: contextlib.AsyncExitStack
        self.ids: dict[bytes, int] = {}
        self.ill_since_s: float | None = None

    @property
    def folder(self) -> Path:
        return self.root / f"{self.lives}"

    @property
    def disk(self) -> ConnectionInLoop:
        disk = self.spill._thread
        assert isinstance(disk, ConnectionInLoop)
        return disk

    @property
    def is_disk_broken(self) -> bool:
        return self.disk.error is not None

    def spilled_payloads(self) -> list[bytes]:
        if not hasattr(self, "spill"):
            return []
        requests = in_file(self.spill.path)
        self.ids.update({each.payload: each.id for each in requests})
        return payloads(requests)

    @initialize(
        writer_count=st.integers(1, 2), has_room=st.booleans(), takes_s=st.sampled_from((0.02, 0.0))
    )
    def begin(self, writer_count: int, has_room: bool, takes_s: float) -> None:
        self.database.takes_s = takes_s
        self.writer_count = writer_count
        self.letter_bytes = 10**9 if has_room else 0
        self.run(self._start())

    @precondition(lambda self: self.is_well_connected)
    @rule()
    def collector_is_killed(self) -> None:
        """kill -9, and a new one on the files as they are."""

        async def kill() -> None:
            self.session.is_cut = True
            before = self.folder
            self.lives += 1
            shutil.copytree(before, self.folder)
            for each in self.senders.pending:
                each.task.cancel()
            self.database.mend()
            await self.stack.aclose()
            await self._start()

        self.run(kill())

    @precondition(lambda self: self.is_well_connected)
    @rule()
    def collector_is_restarted(self) -> None:
        """In order, whatever the database does meanwhile."""

        async def restart() -> None:
            await self.let_receivers_close()
            began_s = now_s()
            await self.stack.aclose()
            assert now_s() - began_s <= CLOSE_S
            await self._start()

        self.run(restart())

    @rule(is_broken=st.booleans())
    def disk_breaks_or_is_mended(self, is_broken: bool) -> None:
        self.disk.error = StorageUnavailable("no disk") if is_broken else None
        for each in self.senders.pending:
            each.is_excused = True

    @property
    def is_gone(self) -> bool:
        return self.database.is_away or self.database.is_frozen

    @invariant()
    def the_oldest_are_drained_first(self) -> None:
        if not hasattr(self, "session"):
            return
        own = {id(each.batch) for each in self.senders.submissions}
        tried = [
            self.ids[batch.payload]
            for batches in self.session.tries
            for batch in batches
            if id(batch) not in own and batch.payload in self.ids
        ]
        first_tries = list(dict.fromkeys(tried))
        assert first_tries == sorted(first_tries)

    @property
    def is_well_connected(self) -> bool:
        """A start needs a disk."""
        return hasattr(self, "spill") and not self.is_disk_broken

    def teardown(self) -> None:
        try:
            if hasattr(self, "spill"):
                self.disk.error = None
                self.run(self._come_to_an_end())
        finally:
            self.end()
            self.scratch.close()

    async def _come_to_an_end(self) -> None:
        await self.come_to_rest()
        self.what_was_acknowledged_is_there()
        self.the_oldest_are_drained_first()
        content = self.spill.content
        assert content == recounted(self.spill.path)
        assert content.requests == 0
        if self.letter_bytes:  # trouble sets nothing aside, and what is refused becomes a letter
            assert content.set_aside == 0
        assert self.sink.describe()["database_away"] is False  # type: ignore[attr-defined]
        await self.stack.aclose()
        assert self.senders.missing(self.spilled_payloads()) == []

    async def _start(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        keeper = DeadLetterKeeper(self.database.letters, max_bytes=self.letter_bytes)
        batcher = self.new_batcher(self.writer_count, hold_s=HOLD_S, keeper=keeper)
        await self.stack.enter_async_context(batcher)
        self.spill = await self.stack.enter_async_context(Spill.open(self.folder, ENOUGH))
        self.sink = await self.stack.enter_async_context(
            open_spilling_sink(
                batcher,
                self.spill,
                cast(StorageAdmin, self.session),  # only `check` is asked for
                max_batch_bytes=BATCH_BYTES,
                max_queued_bytes=QUEUED_BYTES,
                metrics=SpillMetrics(),
            )
        )


def test_what_is_acknowledged_is_never_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msgtrace.storage.spill.ConnectionThread", ConnectionInLoop)
    monkeypatch.setattr("msgtrace.pipeline.drain.GROUP_BYTES", GROUP_BYTES)
    run_state_machine_as_test(SpillingModel, settings=model_settings(examples=40, steps=40))
