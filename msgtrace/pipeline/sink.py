"""Where decoded spans go: all that the receivers know of what comes after them."""

from __future__ import annotations

from typing import Protocol

from msgtrace.model.batch import SpanBatch


class SpanSink(Protocol):
    """Takes batches and answers for them."""

    async def submit(self, batch: SpanBatch) -> None:
        """Return once every span of the batch is durable or rejected.

        Spans that the database refuses for their data are counted in `batch.rejections`, and are
        durably kept as a dead letter where there is room. No data makes a batch fail for ever.
        Raises Unavailable if a retry may help: some of it may be stored, and a resend stores
        nothing twice. StorageError is a fault of ours.
        A caller that stops waiting changes nothing: the batch may still be stored.
        """
        ...
