"""A sink in virtual time before a database that does anything: what both model checks do alike."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from msgtrace.errors import Overloaded
from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.pipeline.batcher import HOLD_S, Batcher
from msgtrace.pipeline.sink import SpanSink
from msgtrace.pipeline.spill import LOOK_INTERVAL_S
from msgtrace.serving import STOP_GRACE_S
from tests.modelled import PIECE_BYTES, Export, ModelDatabase, Senders, Session
from tests.virtual_time import VirtualTimeLoop, now_s

T = TypeVar("T")

_FAULTS = ("batch_write_failed", "drain_failed")
"""What the pipeline logs of errors that it does not know."""

BATCH_BYTES = 8 * PIECE_BYTES
QUEUED_BYTES = 24 * PIECE_BYTES

_TROUBLES = ("away", "frozen", "fails", "forgets")

LONGEST_ANSWER_S = HOLD_S + LOOK_INTERVAL_S + 0.3
"""What a sender waits for at most while the database is away."""

QUIET_S = 120.0
"""After which everything must have come to rest, once nothing is wrong any more."""

_POISONS = [frozenset[int](), frozenset({0}), frozenset({1}), frozenset({0, 2})]
_SHAPES = st.tuples(
    st.sampled_from((1, 2, 4)),  # spans
    st.sampled_from((0, 0, 0, 1, 4, 15, 50)),  # padding
    st.sampled_from((_POISONS[0], *_POISONS)),
)


def model_settings(examples: int, steps: int) -> settings:
    """A few seconds; HYPOTHESIS_LONG=10 looks ten times as far."""
    factor = int(os.environ.get("HYPOTHESIS_LONG", "1"))
    return settings(
        max_examples=examples * factor,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class _FaultsLogged(logging.Handler):
    """Of a pipeline whose database raises only what a database may."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._faults = faults
        logging.getLogger("msgtrace.pipeline").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg in _FAULTS:
            self._faults.append(self.format(record))

    def close(self) -> None:
        logging.getLogger("msgtrace.pipeline").removeHandler(self)
        super().close()


class SinkModel(RuleBasedStateMachine):
    """Senders, the database, and time. A subclass puts the sink between them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.loop_faults: list[str] = []
        loop = self.runner.get_loop()
        loop.set_exception_handler(lambda _, context: self.loop_faults.append(str(context)))
        self.faults_logged = _FaultsLogged(self.loop_faults)
        self.database = ModelDatabase()
        self.senders = Senders(self.database)
        self.is_closed = False
        self.session: Session
        self.batcher: Batcher
        self.sink: SpanSink

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """And let every task go on until it waits for something."""

        async def do() -> T:
            result = await work
            for _ in range(10):
                await asyncio.sleep(0)
            return result

        return self.runner.run(do())

    def end(self) -> None:
        """Of this example."""
        self.runner.close()
        self.faults_logged.close()

    def new_batcher(self, writer_count: int, **options: Any) -> Batcher:
        self.session = Session(self.database, writer_count)
        self.batcher = Batcher(
            self.session,
            max_batch_bytes=BATCH_BYTES,
            max_queued_bytes=QUEUED_BYTES,
            clock=self.runner.get_loop().time,
            **options,
        )
        return self.batcher

    def spilled_payloads(self) -> list[bytes]:
        """In the order in which they are to be drained."""
        return []

    @property
    def is_disk_broken(self) -> bool:
        return False

    @precondition(lambda self: not self.is_closed)
    @rule(shapes=st.lists(_SHAPES, min_size=1, max_size=8), is_slow=st.booleans())
    def submit(self, shapes: list[tuple[int, int, frozenset[int]]], is_slow: bool) -> None:
        async def send() -> None:
            for spans, padding, poison in shapes:
                places = frozenset(place for place in poison if place < spans)
                export = Export(len(self.senders.submissions), spans, padding, places)
                self.senders.send(self.sink, export, is_excused=self.is_disk_broken)
                await asyncio.sleep(0.01 if is_slow else 0)

        self.run(send())

    @precondition(lambda self: not self.is_closed)
    @rule(seconds=st.sampled_from((0.0, 0.05, 0.3, 1.1, 3.0)))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: not self.is_closed and self.senders.pending)
    @rule(each=st.integers(1, 4))
    def senders_leave(self, each: int) -> None:
        for submission in self.senders.pending[::each]:
            submission.task.cancel()
        self.run(asyncio.sleep(0))

    @precondition(lambda self: not self.is_closed)
    @rule(
        shapes=st.lists(_SHAPES, min_size=2, max_size=8),
        what=st.sampled_from(_TROUBLES),
        writes=st.sampled_from((3, 21, 22, 23)),
        each=st.integers(1, 9),
        seconds=st.sampled_from((0.0, 0.3, 3.0, 3.0)),
    )
    def a_crowd_meets_trouble(
        self,
        shapes: list[tuple[int, int, frozenset[int]]],
        what: str,
        writes: int,
        each: int,
        seconds: float,
    ) -> None:
        """What makes the most of a few steps: some are written, some wait, some leave."""
        self.submit(shapes=shapes[:1] * 3, is_slow=False)
        self.database_is_unwell(what=what, writes=writes)
        self.submit(shapes=shapes, is_slow=False)
        self.senders_leave(each=each)
        self.time_passes(seconds=seconds)
        self.nobody_waits_longer_than_the_hold()
        self.database_is_well(keeps_what_is_cancelled=False)
        self.time_passes(seconds=seconds)

    @precondition(lambda self: not self.is_closed)
    @rule(takes_s=st.sampled_from((0.0, 0.02, 0.4)))
    def writes_take(self, takes_s: float) -> None:
        self.database.takes_s = takes_s

    @precondition(lambda self: not self.is_closed)
    @rule(what=st.sampled_from(_TROUBLES), writes=st.sampled_from((3, 21, 22, 23)))
    def database_is_unwell(self, what: str, writes: int) -> None:
        if what == "away":
            self.database.go_away()
        elif what == "frozen":
            self.database.freeze()
        elif what == "fails":
            self.database.fail(writes, after=writes % 4)
        else:
            self.database.forget(writes)

    @precondition(lambda self: not self.is_closed)
    @rule(keeps_what_is_cancelled=st.booleans())
    def database_is_well(self, keeps_what_is_cancelled: bool) -> None:
        self.database.keeps_what_is_cancelled = keeps_what_is_cancelled
        self.database.mend()
        self.run(asyncio.sleep(0))

    @precondition(lambda self: self.is_closed)
    @rule()
    def nothing_is_taken_after_the_end(self) -> None:
        async def send() -> None:
            late = self.senders.send(self.sink, Export(len(self.senders.submissions)))
            await asyncio.wait([late.task])
            await asyncio.sleep(0)
            assert isinstance(late.error, Overloaded)

        self.run(send())

    @precondition(lambda self: not self.is_closed)
    @rule()
    def nobody_waits_longer_than_the_hold(self) -> None:
        """For a database that is away all the time."""

        async def wait() -> None:
            waiting = self.senders.pending
            await asyncio.sleep(LONGEST_ANSWER_S)
            assert [each.export for each in waiting if not each.task.done()] == []

        if self.is_gone and self.database.takes_s < 0.1:
            self.run(wait())

    @property
    def is_gone(self) -> bool:
        """Whether the database is away in a way that must be noticed."""
        return self.database.is_away and not self.database.is_frozen

    @invariant()
    def nothing_broke(self) -> None:
        assert self.loop_faults == []

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        assert self.senders.missing(self.spilled_payloads()) == []

    @invariant()
    def nobody_was_refused_without_a_reason(self) -> None:
        assert self.senders.unexcused() == []
        for each in self.senders.submissions:  # no dead letter is refused for its data here
            assert Rejection.DEAD_LETTER_REFUSED not in each.batch.rejections

    @invariant()
    def writes_keep_order_and_bounds(self) -> None:
        if not hasattr(self, "session"):
            return
        session = self.session
        assert session.running <= session.writer_count
        assert session.written_again == []
        for batches in session.tries:
            assert sum(batch.body_bytes for batch in batches[:-1]) < BATCH_BYTES
        places = {id(each.batch): n for n, each in enumerate(self.senders.submissions)}
        tries = [batch for batches in session.tries for batch in batches]
        first_tries = list(dict.fromkeys(places[id(each)] for each in tries if id(each) in places))
        assert first_tries == sorted(first_tries)
        if session.writer_count == 1:
            committed = [places[id(each)] for each in session.committed if id(each) in places]
            assert committed == sorted(committed)

    @invariant()
    def the_queue_keeps_its_bounds(self) -> None:
        if hasattr(self, "batcher"):
            queued_bytes = self.batcher.queued_bytes
            largest = max((each.batch.body_bytes for each in self.senders.submissions), default=0)
            assert 0 <= queued_bytes <= max(QUEUED_BYTES, largest)

    async def come_to_rest(self) -> None:
        """Nothing is wrong any more: everybody must be answered, and the queue end empty."""
        self.database.mend()
        self.database.takes_s = 0.0
        await asyncio.sleep(QUIET_S)
        assert [each.export for each in self.senders.pending] == []
        assert self.batcher.queued_bytes == 0
        assert self.batcher.stalled_s == 0.0

    async def let_receivers_close(self) -> None:
        """As they do before the sink is closed: a while for answers, then nobody waits any more."""
        if waiting := [each.task for each in self.senders.pending]:
            await asyncio.wait(waiting, timeout=STOP_GRACE_S)
        for each in self.senders.pending:
            each.task.cancel()
        await asyncio.sleep(0)


class ExactLimit:
    """The batcher of a model, with a record whenever the queue's limit is not kept to the byte."""

    def __init__(self, model: SinkModel) -> None:
        self._model = model

    async def submit(self, batch: SpanBatch) -> None:
        model, began_s = self._model, now_s()
        queued_bytes = model.batcher.queued_bytes
        is_full = bool(queued_bytes) and queued_bytes + batch.body_bytes > QUEUED_BYTES
        try:
            await model.batcher.submit(batch)
        except Overloaded:
            if not (is_full or model.is_closed) or now_s() != began_s:
                model.loop_faults.append(f"{batch.body_bytes} refused beside {queued_bytes}")
            raise
        if is_full:
            model.loop_faults.append(f"{batch.body_bytes} taken beside {queued_bytes}")
