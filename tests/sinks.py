"""Sinks that receivers may be tested with."""

from __future__ import annotations

from msgtrace.model.batch import SpanBatch


class Nowhere:
    """A sink that is done at once."""

    async def submit(self, batch: SpanBatch) -> None:
        """Forget it."""
