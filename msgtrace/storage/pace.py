"""How maintenance leaves the database to others between its steps."""

from __future__ import annotations

import asyncio
import time

REST_SHARE = 1.0
"""How long maintenance rests after a step, as a share of the step's time: it takes half at most."""

LONGEST_REST_S = 1.0


class Pace:
    """Rests between steps. The step begins when it is made, and after each rest."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    async def rest(self) -> None:
        """Wait as long as the step took, but not for ever."""
        took_s = time.monotonic() - self._began_s
        await asyncio.sleep(min(took_s * REST_SHARE, LONGEST_REST_S))
        self._began_s = time.monotonic()
