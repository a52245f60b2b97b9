"""Where decoded spans go: all that the receivers know of what comes after them."""

from __future__ import annotations

from typing import Protocol

from msgtrace.model.batch import SpanBatch


class SpanSink(Protocol):
    """Takes batches and answers for them."""

    async def submit(self, batch: SpanBatch) -> None:
        """Return once every span of the batch is durable.

        Raises Unavailable if nothing of it was stored and a retry may help, StorageError if it will
        not.
        A caller that stops waiting changes nothing: the batch may still be stored.
        """
        ...
