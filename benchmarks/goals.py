"""A figure beside its goal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """A measured figure, and what it is to be. spec: how both are written."""

    name: str
    figure: float
    spec: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the figure is within its bounds."""
        is_enough = self.at_least is None or self.figure >= self.at_least
        return is_enough and (self.at_most is None or self.figure <= self.at_most)

    def __str__(self) -> str:
        bounds = [
            f"{sign} {format(bound, self.spec)}"
            for sign, bound in (("≥", self.at_least), ("≤", self.at_most))
            if bound is not None
        ]
        verdict = "met" if self.is_met else "NOT MET"
        figure = format(self.figure, self.spec)
        return f"{self.name:<44} {figure:>10}   {' '.join(bounds):<10} {verdict}"


def print_goals(goals: Iterable[Goal]) -> None:
    """One line each."""
    for goal in goals:
        print(goal)
