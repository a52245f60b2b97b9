"""Read gRPC messages within bounds of memory and time.

Path: gRPC → [receivers.messages] → receivers.grpc.
gRPC hands a message over when it is whole, and tells nobody what it holds of those that are not. So
the memory of the process is watched while any are under way: if it has grown by more than a limit,
the older half of the messages that have taken their time is ended, and so on until it is well.
Whole messages arrive within milliseconds and are never in that half. Who was told so and comes back
at once waits for its turn.
Handlers must be registered as ones of streams: gRPC reads those of unary calls by itself.
Messages come as they were sent, compressed ones too: gRPC would inflate all of them at once.
Not here: the bytes of whole messages, which the budget counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import grpc

from msgtrace.errors import MessageTooSlow, Overloaded, Unavailable, WrongMessageCount
from msgtrace.model.units import MIB
from msgtrace.otlp.encode import encode_retry_info, encode_status
from msgtrace.receivers.budget import ByteLease
from msgtrace.receivers.memory import ProcessMemory
from msgtrace.receivers.status import Answer, refuse
from msgtrace.receivers.turns import WAITING_CALL_BYTES, Turns
from msgtrace.telemetry.collector_metrics import CollectorMetrics

WIRE = "grpc"
"""How metrics and log call this wire."""

MESSAGE_TIMEOUT_S = 60.0
"""From the headers of a call to the end of its message."""

LOOK_INTERVAL_S = 0.01
"""Between two looks at the memory, while messages are under way."""

SLOW_AFTER_LOOKS = 6
"""A message that takes longer may be ended when memory grows.

Looks, not time: while the event loop is held up, whole messages wait for it.
"""

REFUSAL_S = 0.1
"""How long it takes gRPC at most to cancel a call that it has refused itself."""

CALM_RISE_BYTES = MIB
"""How much more memory may count as calm from one look to the next."""

LAST_LOOKS_S = (1.0, 4.0, 15.0)
"""From the end of trouble to giving memory back again: what was ended is freed by and by."""

MAX_ENDED_AT_ONCE = 200
"""Messages ended in one look; to say so to each keeps the event loop for a moment."""

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(eq=False, slots=True)
class _Unfinished:
    """A message under way. began_at_look: the look before its first byte was asked for."""

    context: Context
    began_s: float
    began_at_look: int
    is_ended: bool = False


class MessageReader:
    """Reads the messages of all calls of a server.

    max_bytes: what memory may grow by while messages are slow; a slow one that is alone may take
    what gRPC allows it.
    """

    def __init__(
        self, max_bytes: int, metrics: CollectorMetrics, memory: ProcessMemory | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._memory = memory or ProcessMemory()
        self._unfinished: dict[_Unfinished, None] = {}  # oldest first
        self._turns = Turns()
        self._looks = 0
        self._calm_bytes = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._trouble_until_s = 0.0
        self._did_wait = False

    async def read(self, context: Context, lease: ByteLease) -> bytes:
        """The one message of a call, held by `lease`.

        Raises WrongMessageCount for none or several, Overloaded, MessageTooSlow, and CancelledError
        if the call was ended meanwhile.
        """
        if self._turns.has_peers:
            self._keep_looking()
            await self._turns.wait(context.peer(), MESSAGE_TIMEOUT_S)
        with self._reading(context) as unfinished:
            message = await _read_on(context, unfinished)
            if message is None:
                # So it looks, too, when gRPC has refused a message that is too large or damaged: it
                # then cancels this task.
                await asyncio.sleep(REFUSAL_S)
                if unfinished.is_ended:
                    raise asyncio.CancelledError
                raise WrongMessageCount("the call ended without a message")
            lease.hold(len(message))
            if await _read_on(context, unfinished) is not None:
                raise WrongMessageCount("the call has more than one message")
        return message

    @contextmanager
    def _reading(self, context: Context) -> Iterator[_Unfinished]:
        began_s = asyncio.get_running_loop().time()
        unfinished = _Unfinished(context, began_s, self._looks)
        self._unfinished[unfinished] = None
        self._keep_looking()
        try:
            yield unfinished
        finally:
            self._unfinished.pop(unfinished, None)

    def _keep_looking(self) -> None:
        if self._timer is None:
            self._calm_bytes = self._calm_at_most(self._memory.private_bytes())
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._looks += 1
        self._end_late()
        slow = self._slow()
        if not slow and not self._turns.waiting_count:
            self._calm_bytes = self._calm_at_most(self._calm_bytes + CALM_RISE_BYTES)
        elif len(slow) > 1 and self._has_grown():
            for each in slow[: min(len(slow) // 2, MAX_ENDED_AT_ONCE)]:
                self._turns.add(each.context.peer())
                self._end(each, Overloaded("messages under way take too much memory"))
        else:
            self._turns.give()
        if self._did_wait and not self._turns.waiting_count:
            self._look_later()
        self._did_wait = self._turns.waiting_count > 0
        if self._unfinished or self._did_wait:
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self._look)

    def _calm_at_most(self, most_bytes: int) -> int:
        """What memory is when nothing is slow, at most `most_bytes`.

        A burst of messages is not to count as calm, nor what is still to be freed after trouble.
        """
        if asyncio.get_running_loop().time() < self._trouble_until_s:
            most_bytes = min(most_bytes, self._calm_bytes)
        return min(self._memory.private_bytes(), most_bytes)

    def _slow(self) -> list[_Unfinished]:
        """The messages that take their time, oldest first."""
        newest = self._looks - SLOW_AFTER_LOOKS
        old = itertools.takewhile(lambda each: each.began_at_look <= newest, self._unfinished)
        return list(old)

    def _has_grown(self) -> bool:
        """Whether memory has grown too much since nothing was slow, also after giving some back."""
        limit = self._calm_bytes + self._max_bytes
        limit += self._turns.waiting_count * WAITING_CALL_BYTES
        if self._memory.private_bytes() <= limit:
            return False
        self._memory.give_back()
        return self._memory.private_bytes() > limit

    def _end_late(self) -> None:
        latest_s = asyncio.get_running_loop().time() - MESSAGE_TIMEOUT_S
        late = itertools.takewhile(lambda each: each.began_s < latest_s, self._unfinished)
        for each in list(late):
            self._end(each, MessageTooSlow(f"the message took more than {MESSAGE_TIMEOUT_S:g} s"))

    def _end(self, unfinished: _Unfinished, error: Unavailable) -> None:
        """Answer a call whose message is under way. What waits for the message is not cancelled.

        gRPC would then never free a message that has just become whole.
        """
        del self._unfinished[unfinished]
        unfinished.is_ended = True
        answer = refuse(error, WIRE, self._metrics)
        ending = asyncio.create_task(_abort_quietly(unfinished.context, answer))
        self._ending.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._ending.discard(ending)
        if not self._ending:
            self._look_later()

    def _look_later(self) -> None:
        """Give memory back when gRPC has freed what was ended, or what has left."""
        self._trouble_until_s = asyncio.get_running_loop().time() + LAST_LOOKS_S[-1]
        self._memory.give_back_later(LAST_LOOKS_S)


async def _read_on(context: Context, unfinished: _Unfinished) -> bytes | None:
    """The next message of the call, None if there is none."""
    try:
        message: object = await context.read()
    except grpc.aio.AbortError:  # by `_end`
        message = None
    if unfinished.is_ended:
        raise asyncio.CancelledError
    return message if isinstance(message, bytes) else None


async def _abort_quietly(context: Context, answer: Answer) -> None:
    with contextlib.suppress(grpc.aio.AbortError, asyncio.CancelledError):
        await abort(context, answer)


async def abort(context: Context, answer: Answer) -> NoReturn:
    """End a call with a Trailers-Only error: Java's sender reads the status nowhere else."""
    trailers: list[tuple[str, bytes]] = [
        (
            "grpc-status-details-bin",
            encode_status(answer.code_number, answer.message, answer.retry_after_s),
        )
    ]
    if answer.retry_after_s is not None:
        trailers.append(("google.rpc.retryinfo-bin", encode_retry_info(answer.retry_after_s)))
    try:
        await context.abort(answer.grpc_code, answer.message, tuple(trailers))
    except grpc.aio.InternalError:
        # The call has ended; gRPC would write an error into the log for anything but this.
        raise asyncio.CancelledError from None
