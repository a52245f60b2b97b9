"""A bound on the bytes of all requests under way, beside the bound on each."""

from __future__ import annotations

from msgtrace.errors import Overloaded


class ByteBudget:
    """Counts bytes held by requests; several requests share one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._held_bytes

    def lease(self) -> ByteLease:
        """What one request holds; leave its block to give it back."""
        return ByteLease(self)

    def _hold(self, count: int, own_bytes: int) -> None:
        # A request that is alone is bounded by its own limit: told to retry, it would never end.
        is_alone = self._held_bytes == own_bytes
        if self._held_bytes + count > self._max_bytes and not is_alone:
            raise Overloaded(
                f"requests under way hold {self._held_bytes} bytes, the limit is {self._max_bytes}"
            )
        self._held_bytes += count

    def _give_back(self, count: int) -> None:
        self._held_bytes -= count


class ByteLease:
    """The bytes of one request, growing as they arrive."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held_bytes = 0

    def hold(self, count: int) -> None:
        """Hold more. Raises Overloaded if all requests together would hold too much."""
        self._budget._hold(count, self._held_bytes)
        self._held_bytes += count

    def __enter__(self) -> ByteLease:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget._give_back(self._held_bytes)
        self._held_bytes = 0
