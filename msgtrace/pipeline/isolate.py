"""Store all of a refused batch but the spans that the database refuses.

Path: pipeline.batcher → pipeline.dead_letters → [pipeline.isolate] → storage.
The batch is cut in halves and each half written; refused halves are cut again, the largest first,
until every offender stands alone. One among 512 spans takes 18 writes.
Bounded: after `max_writes` writes or `max_s` seconds the parts that are refused by then count as
refused whole. The first bound keeps 20 offenders apart in 512 spans; the second is half of what a
sender gives an export.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgtrace.errors import MsgtraceError, Unavailable
from msgtrace.model.batch import SpanBatch, take_spans

Write = Callable[[Sequence[SpanBatch]], Awaitable[int]]
"""`SpanWriter.write_spans`."""

MAX_WRITES = 256
MAX_ISOLATION_S = 5.0


@dataclass(frozen=True, slots=True)
class Isolated:
    """What became of a batch. All spans that are not refused are stored.

    refused: their places in the batch, in order. error: the last refusal, of the smallest part.
    new_spans: how many of the others were not stored before.
    """

    refused: Sequence[int]
    error: Exception
    new_spans: int

    @property
    def reason(self) -> str:
        """The error as a dead letter tells it; nothing of a span is in it."""
        if isinstance(self.error, MsgtraceError):
            return str(self.error)
        return f"internal error: {type(self.error).__name__}"


async def store_all_but_refused(
    write: Write,
    batch: SpanBatch,
    error: Exception,
    *,
    max_writes: int = MAX_WRITES,
    max_s: float = MAX_ISOLATION_S,
) -> Isolated:
    """Write what can be written of a batch that was refused as a whole, with `error`.

    Any error but Unavailable counts as a refusal: a fault of ours must not hold up others either.
    Raises Unavailable as soon as a write does; some of the batch may be stored by then.
    """
    deadline_s = time.monotonic() + max_s
    refused: list[int] = []
    new_spans = writes = 0
    to_cut = deque([range(len(batch.spans))])
    while to_cut:
        part = to_cut.popleft()
        if len(part) == 1 or writes + 2 > max_writes or time.monotonic() > deadline_s:
            refused += part
            continue
        for half in _halves(part):
            writes += 1
            try:
                new_spans += await write([take_spans(batch, half)])
            except Unavailable:
                raise
            except Exception as refusal:  # noqa: BLE001 - see above
                error = refusal
                to_cut.append(half)
    return Isolated(sorted(refused), error, new_spans)


def _halves(part: range) -> tuple[range, range]:
    middle = len(part) // 2
    return part[:middle], part[middle:]
