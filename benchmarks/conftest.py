"""What benchmarks share. A file bench_*.py prints figures and asserts nothing."""

from __future__ import annotations

from typing import Protocol

import pytest


class Report(Protocol):
    """Prints the figures of one measurement. Units are in the names: spans_per_s, p99_ms."""

    def __call__(self, **figures: float) -> None: ...


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """One line a measurement, beginning with the name of the benchmark."""

    def print_figures(**figures: float) -> None:
        shown = "  ".join(f"{name}={value:,g}" for name, value in figures.items())
        print(f"\n{request.node.name}  {shown}")

    return print_figures
