"""What was measured: samples by row and column."""

from __future__ import annotations

import statistics
from collections import defaultdict


class Figures:
    """Samples by row and column, printed as medians."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, row: str, **columns: float) -> None:
        """Add one sample to each column of a row."""
        for column, value in columns.items():
            self._samples[row][column].append(value)

    def has(self, row: str, column: str) -> bool:
        """Whether there is a sample."""
        return column in self._samples[row]

    def median(self, row: str, column: str) -> float:
        """The median of a row's column."""
        return statistics.median(self._samples[row][column])

    def print(self, columns: dict[str, str]) -> None:
        """All rows; `columns` maps a column to its format."""
        print(" | ".join(["case".ljust(34), *(name.rjust(12) for name in columns)]))
        for row in self._samples:
            cells = [
                format(self.median(row, name), spec).rjust(12)
                if name in self._samples[row]
                else " " * 12
                for name, spec in columns.items()
            ]
            print(" | ".join([row.ljust(34), *cells]))
