"""The proof through the database itself: nothing lost, nothing twice, every total right.

Spans and summaries are read in one snapshot, so that an audit may run under load, and side by side
in the order of their traces, so that it takes little memory however much is stored. Each span must
be what was sent, whole; a summary is right if it is what `storage.recompute` makes of the stored
spans of its trace.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgtrace.model.batch import TraceKey
from msgtrace.model.span import SPAN_COLUMNS, Row
from msgtrace.storage.recompute import drifted_columns, plain_trace, summarize_stored
from tests.faults.load import Load, Sent
from tests.faults.sorted_rows import read_sorted
from tests.faults.supply import Origin, Supply, first_trace_id, origin_of, readable

_ATTRIBUTES = SPAN_COLUMNS.index("attributes")
_NAME = SPAN_COLUMNS.index("name")
_SHOWN = 5


@dataclass
class Audit:
    """What was found. `problems` says it in words, the first few of each kind."""

    acknowledged: int = 0
    stored: int = 0
    traces: int = 0
    lost: int = 0
    duplicated: int = 0
    unknown: int = 0
    changed: int = 0
    wrong_totals: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.stored} stored in {self.traces} traces:"
            f" {self.lost} lost, {self.duplicated} duplicated, {self.unknown} never sent,"
            f" {self.changed} not as sent, {self.wrong_totals} wrong totals"
        )

    @property
    def is_clean(self) -> bool:
        wrong = self.lost, self.duplicated, self.unknown, self.changed, self.wrong_totals
        return not any(wrong)

    def require_clean(self) -> None:
        assert self.is_clean, "\n".join([str(self), *self.problems])

    def note(self, what: str, count: int, each: object) -> int:
        """Put the first few into words; return the count with this one."""
        if count < _SHOWN:
            self.problems.append(f"{what}: {each!r}")
        return count + 1


def audit(
    database_url: str, load: Load, epoch: int | None = None, *, kept_since_ns: int = 0
) -> Audit:
    """Compare what the senders know with what the database holds, of one epoch or of all.

    kept_since_ns: spans that start before it are to be gone.
    """
    found = Audit()
    acknowledged = load.snapshot()
    least, end = (
        (b"", None) if epoch is None else (first_trace_id(epoch), first_trace_id(epoch + 1))
    )
    with read_sorted(database_url, least, end) as (spans, summaries):
        begun = load.snapshot()
        seen = _Seen(load.supply, found, begun, kept_since_ns)
        for trace in _by_trace(spans, summaries):
            seen.check(trace.spans)
            _check_summary(found, trace)
    seen.require(acknowledged, epoch)
    return found


def check_integrity(path: str) -> None:
    """SQLite's own opinion of the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


class _Seen:
    """A mark for each span that is stored, a byte of memory for each that was sent."""

    def __init__(
        self, supply: Supply, found: Audit, begun: Sequence[Sent], kept_since_ns: int
    ) -> None:
        self._kept_since_ns = kept_since_ns
        self._supply = supply
        self._found = found
        self._begun = [each.begun for each in begun]
        self._marks = [bytearray() for _ in begun]
        self._stride = supply.most_spans

    def check(self, rows: Iterable[Row]) -> None:
        found = self._found
        for row in rows:
            found.stored += 1
            origin = origin_of(row[2])
            expected = self._expected(origin)
            if (
                expected is None
                or row[4] < self._kept_since_ns
                or row[:3] != expected[:3]
                or row[4] != expected[4]
            ):
                found.unknown = found.note("never sent", found.unknown, row[:5])
            elif self._mark(origin):
                found.duplicated = found.note("duplicated", found.duplicated, row[:5])
            elif row[:_ATTRIBUTES] != expected[:_ATTRIBUTES] or (
                (readable(row[_ATTRIBUTES]), *row[_ATTRIBUTES + 1 :]) != expected[_ATTRIBUTES:]
            ):
                found.changed = found.note("not as sent", found.changed, (row, expected))

    def require(self, acknowledged: Sequence[Sent], epoch: int | None) -> None:
        """Everything acknowledged must be there."""
        found = self._found
        for sender, sent in enumerate(acknowledged):
            marks = self._marks[sender]
            for serial in sent.serials(epoch):
                count = self._kept_count(sender, serial, is_padded=serial in sent.padded)
                first = serial * self._stride
                found.acknowledged += count
                missing = count - sum(marks[first : first + self._stride])
                if missing:
                    found.note("lost", found.lost, f"{missing} of request {sender}/{serial}")
                    found.lost += missing

    def _kept_count(self, sender: int, serial: int, *, is_padded: bool) -> int:
        count = self._supply.span_count(sender, serial, is_padded=is_padded)
        if not self._kept_since_ns:
            return count
        origins = (Origin(sender, 0, serial, is_padded, place) for place in range(count))
        return sum(self._supply.start_ns(each) >= self._kept_since_ns for each in origins)

    def _expected(self, origin: Origin) -> Row | None:
        is_begun = 0 <= origin.sender < len(self._begun) and (
            origin.serial < self._begun[origin.sender]
        )
        return self._supply.row(origin) if is_begun else None

    def _mark(self, origin: Origin) -> bool:
        """Mark it; return whether it was marked before."""
        marks = self._marks[origin.sender]
        position = origin.serial * self._stride + origin.place
        if position >= len(marks):
            marks.extend(bytes(position + 1 + 4096 - len(marks)))
        before, marks[position] = marks[position], 1
        return bool(before)


@dataclass
class _Trace:
    key: TraceKey
    spans: list[Row]
    summaries: list[Row]


def _by_trace(spans: Iterable[Row], summaries: Iterable[Row]) -> Iterator[_Trace]:
    """Both sides of each trace; either may be missing."""
    groups = itertools.groupby(spans, key=lambda row: row[:2])
    known = iter(summaries)
    summary = next(known, None)
    for key, rows in groups:
        while summary is not None and summary[:2] < key:
            yield _Trace(summary[:2], [], [summary])
            summary = next(known, None)
        trace = _Trace(key, list(rows), [])
        while summary is not None and summary[:2] == key:
            trace.summaries.append(summary)
            summary = next(known, None)
        yield trace
    while summary is not None:
        yield _Trace(summary[:2], [], [summary])
        summary = next(known, None)


def _check_summary(found: Audit, trace: _Trace) -> None:
    found.traces += 1
    for wrong in _wrong_totals(trace):
        found.wrong_totals = found.note("wrong total", found.wrong_totals, wrong)


def _wrong_totals(trace: _Trace) -> list[str]:
    if not trace.spans:
        return [f"summary without spans {trace.key!r}"]
    if len(trace.summaries) != 1:
        return [f"{len(trace.summaries)} summaries of {trace.key!r}"]
    rows = [(*row[: _NAME + 1], row[_ATTRIBUTES]) for row in trace.spans]
    [(key, delta)] = summarize_stored(rows).items()
    different = drifted_columns(plain_trace(trace.summaries[0], _list), key, delta)
    return [f"{key[1].hex()}: {', '.join(different)}"] if different else []


def _list(column: str | list[str]) -> list[str]:
    """Of a column that is JSON or an array, as the backend has it."""
    return list(json.loads(column)) if isinstance(column, str) else column
