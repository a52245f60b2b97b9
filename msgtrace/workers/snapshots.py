"""The metrics of one process as plain data, and those of several as one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from msgtrace.workers.messages import Family, Sample, Snapshot

LABEL = "worker"


def read_families(registry: CollectorRegistry) -> list[Family]:
    """Every metric of the registry, with its values now."""
    return [
        Family(
            family.name,
            family.documentation,
            family.type,
            [Sample(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in registry.collect()
    ]


def merged_metrics(snapshots: Sequence[Snapshot], of_all: Sequence[Family] = ()) -> bytes:
    """One page in Prometheus' text format: every series of every worker, labelled by its number.

    of_all: families of the whole, without that label. Nothing is summed up here: PromQL does it,
    and knows which of them are sums.
    """
    return generate_latest(_Merged(snapshots, of_all))


class _Merged(CollectorRegistry):
    def __init__(self, snapshots: Sequence[Snapshot], of_all: Sequence[Family]) -> None:
        super().__init__()
        self._snapshots = snapshots
        self._of_all = of_all

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        merged = {each.name: _metric(each) for each in self._of_all}
        for family in self._of_all:
            _add(merged[family.name], family, {})
        for snapshot in self._snapshots:
            for family in snapshot.families:
                metric = merged.setdefault(family.name, _metric(family))
                _add(metric, family, {LABEL: str(snapshot.number)})
        yield from merged.values()


def _metric(family: Family) -> Metric:
    return Metric(family.name, family.help, family.kind)


def _add(metric: Metric, family: Family, labels: dict[str, str]) -> None:
    for sample in family.samples:
        metric.add_sample(sample.name, sample.labels | labels, sample.value)
