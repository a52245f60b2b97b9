"""A body that is still being read, and that others may end: its sender is told to come back."""

from __future__ import annotations

import asyncio
from types import TracebackType

from msgtrace.errors import Unavailable


class UnfinishedBody:
    """A `with` block in which the current task reads a body; `end` ends it with an error."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._cancels_before = task.cancelling()
        self._errors: list[Unavailable] = []

    def end(self, error: Unavailable) -> None:
        """Raise `error` where the body is read. Not for the task that reads it."""
        self._errors = [error]
        self._task.cancel()

    def __enter__(self) -> UnfinishedBody:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._errors:
            return
        # As asyncio.timeout does it: who else cancelled the task must have its way.
        others_cancel = self._task.uncancel() > self._cancels_before
        if kind is asyncio.CancelledError and not others_cancel:
            # Nothing is kept of it: its traceback holds the frames that hold the body.
            raise self._errors.pop()
