"""Calls of connections that were told to come back later: few at once are read.

A sender whose message was ended may come again in the same moment, and thousands of them would keep
the collector busy with nothing but ending them. So the next calls of such a connection wait, unread
and unanswered, until their turn comes. Those of other connections are read at once.
Not here: when a turn comes, which `receivers.messages` says.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgtrace.errors import MessageTooSlow, Overloaded
from msgtrace.model.units import KIB

TURNS_FOR_S = 10.0
"""How long a connection has to wait its turns after one of its messages was ended."""

MAX_WAITING = 5_000
"""Calls that wait for their turn; further ones are told to come back later at once."""

WAITING_CALL_BYTES = 40 * KIB
"""What gRPC and the event loop take for a call that waits, and for what has come of it."""


class Turns:
    """Who has to wait, and who waits. Connections take turns, so that none shuts out another."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}  # by peer, soonest first
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by peer, next first
        self._count = 0

    @property
    def waiting_count(self) -> int:
        """Calls that wait now."""
        return self._count

    @property
    def has_peers(self) -> bool:
        """Whether any connection has to wait its turns."""
        return bool(self._until_s)

    def add(self, peer: str) -> None:
        """Make the calls of a connection wait from now on, for TURNS_FOR_S."""
        self._forget_old()
        self._until_s.pop(peer, None)
        self._until_s[peer] = asyncio.get_running_loop().time() + TURNS_FOR_S

    async def wait(self, peer: str, timeout_s: float) -> None:
        """Return when a call of the connection may be read, at once unless it has to wait.

        Raises Overloaded if too many wait, MessageTooSlow after `timeout_s`.
        """
        self._forget_old()
        if peer not in self._until_s:
            return
        if self._count >= MAX_WAITING:
            raise Overloaded("too many calls wait for their turn")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        self._count += 1
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except TimeoutError:
            raise MessageTooSlow(f"the call waited {timeout_s:g} s for its turn") from None
        finally:
            self._count -= 1
            if turn.cancelled():
                self._leave(peer, turn)

    def give(self) -> None:
        """Give the next turn, if anybody waits for one."""
        while self._waiting:
            peer = next(iter(self._waiting))
            calls = self._waiting.pop(peer)
            turn = calls.popleft()
            if calls:
                self._waiting[peer] = calls
            if not turn.done():  # its client may have left in this moment
                turn.set_result(None)
                return

    def _leave(self, peer: str, turn: asyncio.Future[None]) -> None:
        calls = self._waiting.get(peer)
        if calls is not None and turn in calls:  # `give` may have passed over it already
            calls.remove(turn)
            if not calls:
                del self._waiting[peer]

    def _forget_old(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self._until_s and next(iter(self._until_s.values())) < now_s:
            del self._until_s[next(iter(self._until_s))]
