"""What maintenance plans, does and finds: plain data for storage, collector and commands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a step of a purge, or several together, did.

    spans: counted by the summaries of their traces. traces: deleted, no span of theirs is left.
    shortened: traces that lost their expired spans and keep the others.
    """

    spans: int = 0
    traces: int = 0
    shortened: int = 0
    partitions: int = 0

    def __add__(self, other: Purged) -> Purged:
        return Purged(
            spans=self.spans + other.spans,
            traces=self.traces + other.traces,
            shortened=self.shortened + other.shortened,
            partitions=self.partitions + other.partitions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgePlan:
    """What a purge up to `before_ns` would do.

    before_ns: the edge that is really used. traces: those that are deleted or shortened.
    spans and freed_bytes are estimates where counting would read the spans.
    """

    before_ns: int
    traces: int
    spans: int
    freed_bytes: int
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeVerdict:
    """How much of a limit is used, and what to do about it.

    edge_ns: purging up to it brings the size below the limit; None if nothing needs to go, or
    nothing more may.
    """

    used_bytes: int
    edge_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionState:
    """What all processes on a database know of its retention; zeros if it never ran."""

    succeeded_at_ns: int = 0
    purged_before_ns: int = 0
    purged_spans: int = 0
    purged_traces: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """The spans of one day, or of all clocks that are too far off (both times None).

    rows is an estimate; bytes count indexes too.
    """

    name: str
    first_ns: int | None
    end_ns: int | None
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumStep:
    """One step of a vacuum: so many of `total` are `done`; `table` is next, empty at the end."""

    done: int
    total: int
    table: str = ""


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check of the doctor saw, and what to do about it; nothing to do if all is well."""

    check: str
    level: Level
    message: str
    cure: str = ""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, level=Level.OK, message=message)


def warning(check: str, message: str, cure: str) -> Finding:
    """Works today, and should be looked at."""
    return Finding(check=check, level=Level.WARNING, message=message, cure=cure)


def problem(check: str, message: str, cure: str) -> Finding:
    """Does not work, or will not keep its promise."""
    return Finding(check=check, level=Level.PROBLEM, message=message, cure=cure)
