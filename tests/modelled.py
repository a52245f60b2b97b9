"""For model checks of the pipeline: a database that does anything, and the senders' books."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from msgtrace.errors import DataRefused, Overloaded, StorageUnavailable, Unavailable
from msgtrace.model.batch import NOT_KEPT, SpanBatch
from msgtrace.otlp.encodings import PROTOBUF, decode_as
from msgtrace.pipeline.sink import SpanSink
from tests.batches import request, span, span_id_of
from tests.letters import MemoryLetters, names_in

PIECE_BYTES = 200
"""Of a request of the smallest size, about."""

_ROUNDED_BYTES = PIECE_BYTES // 2


@dataclass(frozen=True)
class Export:
    """A request. Its spans are named "number.place"; `poison` are those that a database refuses."""

    number: int
    span_count: int = 1
    padding: int = 0
    poison: frozenset[int] = frozenset()

    @functools.cached_property
    def names(self) -> list[str]:
        return [f"{self.number}.{place}" for place in range(self.span_count)]

    @functools.cached_property
    def payload(self) -> bytes:
        padding = {"padding": "x" * (PIECE_BYTES // 2 * (1 + self.padding))}
        spans = [span(name) for name in self.names[1:]]
        return request(span(self.names[0], attributes=padding), *spans).SerializeToString()

    def batch(self) -> SpanBatch:
        """Its size rounded, so that sums meet limits exactly."""
        batch = decode_as(PROTOBUF, self.payload)
        batch.body_bytes = -(-batch.body_bytes // _ROUNDED_BYTES) * _ROUNDED_BYTES
        return batch


class ModelDatabase:
    """Spans by name, each stored once; refuses poison; is away, frozen or forgetful when told to.

    troubles counts what may excuse an answer other than success.
    """

    def __init__(self) -> None:
        self.letters = MemoryLetters()
        self.stored: dict[str, int] = {}
        self.poison: dict[str, Exception] = {}
        self.takes_s = 0.0
        self.failures_to_come = self._writes_before_failures = 0
        self.answers_to_lose = 0
        self.keeps_what_is_cancelled = False
        self.troubles = 0
        self.is_away = False
        self._goes_on = asyncio.Event()
        self._goes_on.set()

    @property
    def is_frozen(self) -> bool:
        return not self._goes_on.is_set()

    @property
    def is_well(self) -> bool:
        return not (self.is_away or self.is_frozen or self.failures_to_come or self.answers_to_lose)

    def go_away(self) -> None:
        self.troubles += 1
        self.is_away = True
        self.letters.error = StorageUnavailable("away")

    def freeze(self) -> None:
        self.troubles += 1
        self._goes_on.clear()
        self.letters.is_open.clear()

    def fail(self, writes: int, after: int = 0) -> None:
        """So many writes do not succeed, after some that do."""
        self.troubles += 1
        self.failures_to_come, self._writes_before_failures = writes, after

    def forget(self, writes: int) -> None:
        """The next writes are committed, and nobody is told."""
        self.troubles += 1
        self.answers_to_lose = writes

    def mend(self) -> None:
        """Whatever was wrong is over."""
        self.is_away = False
        self.failures_to_come = self.answers_to_lose = 0
        self.letters.error = None
        self._goes_on.set()
        self.letters.is_open.set()

    def poison_spans(self, export: Export) -> None:
        for place in export.poison:
            is_ours = (export.number + place) % 3 == 0
            error = ValueError("a fault of ours") if is_ours else DataRefused("refused")
            self.poison[export.names[place]] = error

    async def wait(self) -> None:
        await asyncio.sleep(self.takes_s)
        await self._goes_on.wait()

    def commit(self, names: Sequence[str]) -> int:
        if self.is_away or self._fails_now():
            raise StorageUnavailable("no")
        for name in names:
            if name in self.poison:
                raise self.poison[name]
        new = [name for name in dict.fromkeys(names) if name not in self.stored]
        for name in names:
            self.stored[name] = self.stored.get(name, 0) + 1
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise StorageUnavailable("the answer was lost")
        return len(new)

    def _fails_now(self) -> bool:
        if self._writes_before_failures:
            self._writes_before_failures -= 1
            return False
        fails = self.failures_to_come > 0
        self.failures_to_come -= fails
        return fails

    def kept_names(self, export: Export) -> set[str]:
        """Of its spans, those that a dead letter has, with the request."""
        kept = {
            span_id
            for letter in self.letters.kept.values()
            if letter.payload == export.payload
            for _, span_id in letter.spans
        }
        return {name for name in export.names if span_id_of(name) in kept}


class Session:
    """The database as one collector sees it; nothing comes through once it is cut."""

    def __init__(self, database: ModelDatabase, writer_count: int) -> None:
        self.database = database
        self.writer_count = writer_count
        self.tries: list[list[SpanBatch]] = []
        self.written_again: list[list[str]] = []
        """What was tried again although its writer knew that it is stored."""
        self.running = 0
        self.is_cut = False
        self.committed: list[SpanBatch] = []
        """What its writer knows to be stored, in the order of the commits."""

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        names = [name for batch in batches for name in names_in(batch)]
        self.tries.append(list(batches))
        if any(batch is known for known in self.committed for batch in batches):
            self.written_again.append(names)
        self.running += 1
        try:
            await self.database.wait()
        except asyncio.CancelledError:
            if self.database.keeps_what_is_cancelled and self.database.is_frozen:
                self._commit(names)
            raise
        finally:
            self.running -= 1
        new = self._commit(names)
        self.committed += batches
        return new

    async def check(self) -> None:
        await self.database.wait()
        if self.is_cut or self.database.is_away:
            raise StorageUnavailable("no")

    def _commit(self, names: Sequence[str]) -> int:
        if self.is_cut:
            raise StorageUnavailable("cut")
        return self.database.commit(names)


@dataclass
class Submission:
    """One call of submit, and what became of it.

    is_excused: the database, or the disk of the spill, was not well at some time meanwhile.
    """

    export: Export
    batch: SpanBatch
    task: asyncio.Task[None]
    began_s: float
    is_excused: bool
    has_answer: bool = False
    has_crashed: bool = False

    @property
    def is_acknowledged(self) -> bool:
        return self.has_answer and self.task.exception() is None

    @property
    def error(self) -> BaseException | None:
        return self.task.exception() if self.has_answer else None

    @property
    def told_spans(self) -> int:
        """How many of its spans the sender was told of as not kept."""
        return sum(self.batch.rejections.get(each, 0) for each in NOT_KEPT)


@dataclass
class Senders:
    """The books of all senders."""

    database: ModelDatabase
    submissions: list[Submission] = field(default_factory=list)

    def send(self, sink: SpanSink, export: Export, *, is_excused: bool = False) -> Submission:
        """Begin to submit; the answer is entered when it comes."""
        loop = asyncio.get_running_loop()
        database, batch = self.database, export.batch()
        database.poison_spans(export)
        task = loop.create_task(sink.submit(batch))
        excused = is_excused or not database.is_well
        submission = Submission(export, batch, task, loop.time(), excused)
        self.submissions.append(submission)
        before = database.troubles

        def answered(_: asyncio.Task[None]) -> None:
            submission.has_answer = not task.cancelled()
            submission.is_excused |= database.troubles != before

        task.add_done_callback(answered)
        return submission

    @property
    def pending(self) -> list[Submission]:
        return [each for each in self.submissions if not each.task.done()]

    def missing(self, spilled: Collection[bytes]) -> list[str]:
        """Spans that were acknowledged and are nowhere: spilled are the payloads in the spill."""
        missing: list[str] = []
        for each in self.submissions:
            if each.is_acknowledged and each.export.payload not in spilled:
                gone = set(each.export.names) - self.database.stored.keys()
                gone -= self.database.kept_names(each.export)
                if len(gone) > each.told_spans:
                    missing += sorted(gone)
        return missing

    def unexcused(self) -> list[str]:
        """Answers that nothing excuses. What the queue's limit refuses is checked by itself."""
        return [
            f"{each.export}: {each.error!r}"
            for each in self.submissions
            if each.error is not None
            and not isinstance(each.error, Overloaded)
            and not (each.is_excused and isinstance(each.error, Unavailable))
        ]
