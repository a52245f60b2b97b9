"""The sign of each kind of operation, and the legend of those in sight.

Each sign takes one terminal cell.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

_SIGNS = {
    "invoke_workflow": ("▣", "magenta", "workflow"),
    "invoke_agent": ("◉", "cyan", "agent"),
    "inference": ("✦", "blue", "model call"),
    "embeddings": ("∷", "blue", "embeddings"),
    "retrieval": ("⌕", "yellow", "retrieval"),
    "execute_tool": ("⚒", "green", "tool"),
    "step": ("▹", "dim", "step"),
    "wrapper": ("◌", "dim", "wrapper"),
}
"""Operation → sign, style, word."""


def icon_of(operation: str | None) -> Text:
    """The sign and a blank; nothing for a span that is of no known operation."""
    if operation not in _SIGNS:
        return Text()
    sign, style, _ = _SIGNS[operation]
    return Text(f"{sign} ", style=style)


def legend_of(operations: Iterable[str | None]) -> Text | None:
    """What the signs mean, of those that are there; None without any."""
    there = set(operations)
    known = [sign for operation, sign in _SIGNS.items() if operation in there]
    if not known:
        return None
    return Text("  ").join(
        Text.assemble((sign, style), (f" {word}", "dim")) for sign, style, word in known
    )
