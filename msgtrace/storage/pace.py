"""How maintenance leaves the database to others between its steps."""

from __future__ import annotations

import asyncio

REST_SHARE = 1.0
"""How long maintenance rests after a step, as a share of the step's time: it takes half at most."""

LONGEST_REST_S = 1.0


async def rest_after(took_s: float) -> None:
    """Wait as long as the step took that was just done, but not for ever."""
    await asyncio.sleep(min(took_s * REST_SHARE, LONGEST_REST_S))
