"""The batcher against a model: whatever happens, each submit gets one true answer, in bounds.

Hypothesis makes up the course of events in virtual time: requests of many sizes, writes that
succeed, fail, hang, are refused or forgotten, senders that leave, and the end.
"""

from __future__ import annotations

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from msgtrace.errors import StorageUnavailable
from msgtrace.pipeline.batcher import ABANDONED_GRACE_S, HOLD_S
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from tests.stateful import ExactLimit, SinkModel, model_settings
from tests.virtual_time import now_s


class BatcherModel(SinkModel):
    """One batcher from its start to its end."""

    @initialize(writer_count=st.integers(1, 3), takes_s=st.sampled_from((0.02, 0.0)))
    def begin(self, writer_count: int, takes_s: float) -> None:
        self.database.takes_s = takes_s
        keeper = DeadLetterKeeper(self.database.letters, max_bytes=10**9)
        self.new_batcher(writer_count, hold_s=HOLD_S, keeper=keeper)
        self.sink = ExactLimit(self)
        self.run(self.batcher.__aenter__())

    @precondition(lambda self: not self.is_closed)
    @rule()
    def somebody_gives_up_for_all(self) -> None:
        """As the spilling sink does after a while without a commit."""

        async def give_up() -> None:
            for each in self.senders.pending:
                each.is_excused = True
            self.batcher.give_up(StorageUnavailable("nothing is committed"))
            await asyncio.sleep(0)
            assert self.senders.pending == []

        self.run(give_up())

    @precondition(lambda self: not self.is_closed)
    @rule(well_after_s=st.sampled_from((0.0, 0.5, 4.0)))
    def close_while_senders_wait(self, well_after_s: float) -> None:
        """Without a deadline: everybody gets an answer, as late as it may be."""

        async def close() -> None:
            asyncio.get_running_loop().call_later(well_after_s, self.database.mend)
            await self.batcher.__aexit__(None, None, None)
            assert self.senders.pending == []

        self.run(close())
        self.is_closed = True

    @precondition(lambda self: not self.is_closed)
    @rule()
    def close_by_a_deadline(self) -> None:
        """Also a database that never answers must not hold up the end."""

        async def close() -> None:
            await self.let_receivers_close()
            began_s = now_s()
            await self.batcher.__aexit__(None, None, None)
            assert now_s() - began_s <= 2 * ABANDONED_GRACE_S

        self.run(close())
        self.is_closed = True

    @invariant()
    def whoever_waits_is_counted(self) -> None:
        if hasattr(self, "batcher"):
            queued_bytes = self.batcher.queued_bytes
            self.run(asyncio.sleep(0))  # who has an answer by now has heard of it then
            waiting = sum(each.batch.body_bytes for each in self.senders.pending)
            assert waiting <= queued_bytes

    def teardown(self) -> None:
        try:
            if hasattr(self, "batcher") and not self.is_closed:
                self.run(self.come_to_rest())
                self.run(self.batcher.__aexit__(None, None, None))
                self.what_was_acknowledged_is_there()
                self.writes_keep_order_and_bounds()
        finally:
            self.end()


def test_each_submit_gets_one_true_answer_whatever_happens() -> None:
    run_state_machine_as_test(BatcherModel, settings=model_settings(examples=80, steps=40))
