"""What a stored span does, also where no attribute says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgtrace.model.genai import WRAPPER, operation_of
from msgtrace.model.span import Span

_FUNCTIONAL_SCOPE = "msgtrace.sdk"
_FUNCTIONAL = frozenset(
    prefix + name
    for prefix in ("", "a")
    for name in (
        "bcast_gather",
        "background_task",
        "inline",
        "map_gather",
        "msg_bcast_gather",
        "scatter_gather",
        "spawn",
        "wait_for",
        "wait_for_event",
    )
)
"""Span names of msgflux's functional API, which carry no attributes."""


def span_operation(span: Span, attributes: Mapping[str, Any]) -> str | None:
    """The class of the span's operation (`model.genai`), None for none that is known."""
    if attributes:
        return operation_of(attributes)
    is_functional = span.scope.name.startswith(_FUNCTIONAL_SCOPE) and span.name in _FUNCTIONAL
    return WRAPPER if is_functional else None
