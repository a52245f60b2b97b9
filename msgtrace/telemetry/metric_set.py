"""What every set of metrics is made of: declarations, and the words that labels use.

Units are in the names: `_seconds`, `_bytes`, `_total` for counts since the start. Label values come
from small fixed sets, never from what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from msgtrace.errors import MsgtraceError

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets for durations; 0.2 is the aim for acknowledgements under load."""

INTERNAL_ERROR = "internal_error"
"""The reason of an error that was not raised on purpose."""

_CAPITAL_INSIDE = re.compile(r"(?<!^)(?=[A-Z])")


def reason_of(error: BaseException) -> str:
    """The class of an error as a label: `StorageUnavailable` is `storage_unavailable`."""
    if not isinstance(error, MsgtraceError):
        return INTERNAL_ERROR
    return _CAPITAL_INSIDE.sub("_", type(error).__name__).lower()


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric as docs/metrics.md shows it. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class MetricSet:
    """Metrics that belong together. Without a registry they count, and nobody can read them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry
        self.declarations: list[Declaration] = []

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._declare("counter", name, meaning, labels)
        return Counter(name, meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._declare("gauge", name, meaning, labels)
        return Gauge(name, meaning, labels, registry=self._registry)

    def _histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float]
    ) -> Histogram:
        self._declare("histogram", name, meaning, labels)
        return Histogram(name, meaning, labels, registry=self._registry, buckets=buckets)

    def _declare(self, kind: str, name: str, meaning: str, labels: tuple[str, ...]) -> None:
        self.declarations.append(Declaration(name, kind, labels, meaning))


def total_of(metric: Counter | Gauge) -> int:
    """Over all labels, since the start."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    return round(sum(sample.value for sample in samples if not sample.name.endswith("_created")))
