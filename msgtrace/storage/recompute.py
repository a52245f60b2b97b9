"""What the summary of a trace must be, computed from its stored spans.

The one place that does: a purge shortens traces with it, the doctor looks for drift.
Not here: how the database merges what comes in, which is `storage.summary`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from msgtrace.model.batch import TraceDelta, TraceKey, summarize
from msgtrace.model.genai import ALIASES_VERSION, GenAiFacts, read_facts
from msgtrace.model.prices import NO_PRICES, PriceTable
from msgtrace.model.span import SPAN_COLUMNS, TRACE_ID_BYTES, Row
from msgtrace.model.text import unescape_json
from msgtrace.model.usage import sum_counted
from msgtrace.storage.reader import ReadSql, Statement
from msgtrace.storage.summary import LIST_COLUMNS, TRACE_COLUMNS, trace_row
from msgtrace.storage.usage import USAGE_COLUMNS, by_trace, usage_of

_ALIASES_VERSION = TRACE_COLUMNS.index("aliases_version")

_READ_FROM_ATTRIBUTES = frozenset(
    name
    for name in TRACE_COLUMNS
    if name.endswith(("_tokens", "cost"))
    or name.startswith(("workflow_", "session_", "user_"))
    or name in ("aliases_version", "usage_count", "has_usage", *LIST_COLUMNS)
) - {"services", "terms"}
"""What an older alias table may have read otherwise."""

_COUNTED_COLUMNS = SPAN_COLUMNS[: SPAN_COLUMNS.index("name") + 1]

SUMMED_COLUMNS = (*_COUNTED_COLUMNS, "attributes")
"""Order of the rows that `summarize_stored` takes."""

MAX_SAMPLED_SPANS = 10_000
"""Traces with more spans are left out of a sample: each sample is in memory as a whole."""

_COST_TOLERANCE = 1e-6
"""Costs are sums of floating-point numbers in any order."""

_SAMPLE_STARTS = 4

_SAMPLE = f"""
SELECT {", ".join(TRACE_COLUMNS)} FROM traces
WHERE (tenant_id, trace_id) >= (?, ?) AND span_count <= {MAX_SAMPLED_SPANS}
ORDER BY tenant_id, trace_id LIMIT ?
"""  # noqa: S608 - built from constants

_OF_SAMPLE = f"""
WITH sample AS (
    SELECT tenant_id, trace_id FROM traces
    WHERE (tenant_id, trace_id) >= (?, ?) AND span_count <= {MAX_SAMPLED_SPANS}
    ORDER BY tenant_id, trace_id LIMIT ?
)
"""  # noqa: S608 - built from constants

_USAGE_OF_SAMPLE = f"""
{_OF_SAMPLE} SELECT {", ".join(f"u.{column}" for column in USAGE_COLUMNS)}
FROM sample JOIN model_usage u ON u.tenant_id = sample.tenant_id AND u.trace_id = sample.trace_id
"""  # noqa: S608 - built from constants

_SPANS_OF_SAMPLE = f"""
{_OF_SAMPLE} SELECT {", ".join(f"s.{column}" for column in SUMMED_COLUMNS)}
FROM sample JOIN spans s ON s.tenant_id = sample.tenant_id AND s.trace_id = sample.trace_id
"""  # noqa: S608 - built from constants


def summarize_stored(rows: Iterable[Row]) -> dict[TraceKey, TraceDelta]:
    """Sum stored spans, in SUMMED_COLUMNS order, by trace.

    Tokens and cost are the sums of what the spans state; `take_usage` puts those that count in
    their place.
    """
    spans = list(rows)
    return summarize(spans, stored_facts(spans, NO_PRICES))


def stored_facts(rows: Sequence[Row], prices: PriceTable) -> dict[int, GenAiFacts]:
    """What stored spans, in SUMMED_COLUMNS order, state of generative AI, by position."""
    return {
        position: facts.priced(prices)
        for position, row in enumerate(rows)
        if (facts := _facts(row[-1])) is not None
    }


def take_usage(delta: TraceDelta, rows: Sequence[Row]) -> None:
    """Make tokens and cost of a summary those that count by its rows of `model_usage`.

    rows: all of the trace's, in USAGE_COLUMNS order. A trace that an older alias table has summed
    up may have none: its sums stay as they are until it is rebuilt.
    """
    if len(rows) < delta.usage_count:
        return
    sums = sum_counted(usage_of(row) for row in rows)
    delta.usage_count = len(rows)
    delta.input_tokens, delta.output_tokens = sums.input_tokens, sums.output_tokens
    delta.cached_tokens, delta.reasoning_tokens = sums.cached_tokens, sums.reasoning_tokens
    delta.cost, delta.estimated_cost = sums.cost, sums.estimated_cost


def drifted_columns(stored: Row, key: TraceKey, delta: TraceDelta) -> list[str]:
    """The columns of a summary that are not what the spans say.

    stored: in TRACE_COLUMNS order, lists as sorted lists of text. Terms that are not known are no
    drift: readers look at the spans instead. Nor is a trace that was summed up by an older alias
    table: `rebuild-summaries` is for it.
    """
    wanted = trace_row(key, delta, list)
    is_older = stored[_ALIASES_VERSION] < ALIASES_VERSION
    return [
        name
        for name, is_, must in zip(TRACE_COLUMNS, stored, wanted, strict=True)
        if not (is_older and name in _READ_FROM_ATTRIBUTES) and not _agree(name, is_, must)
    ]


def _agree(column: str, is_: Any, must: Any) -> bool:
    if column in ("cost", "estimated_cost"):
        return math.isclose(is_, must, abs_tol=_COST_TOLERANCE)
    return bool(is_ == must) or (column == "terms" and is_ is None)


def plain_trace(row: Row, read_list: Callable[[Any], list[Any]]) -> Row:
    """A row of traces in TRACE_COLUMNS order as `drifted_columns` takes it."""
    others, lists = row[: -len(LIST_COLUMNS)], row[-len(LIST_COLUMNS) :]
    plain = (None if each is None else sorted(map(str, read_list(each))) for each in lists)
    return (*others, *plain)


async def find_drift(
    read: ReadSql, read_list: Callable[[Any], list[str]], trace_count: int
) -> tuple[int, dict[TraceKey, list[str]]]:
    """Compare about `trace_count` random traces with their spans.

    Return how many were looked at, and the wrong columns of those that are wrong; a summary whose
    spans are gone has all of them wrong.
    """
    looked_at: set[TraceKey] = set()
    drifted: dict[TraceKey, list[str]] = {}
    each = math.ceil(trace_count / _SAMPLE_STARTS)
    # The first key is that of the least trace, so that a small database is looked at as a whole.
    more = (
        random.randbytes(TRACE_ID_BYTES)  # noqa: S311 - a sample, no secret
        for _ in range(_SAMPLE_STARTS - 1)
    )
    for start in (bytes(TRACE_ID_BYTES), *more):
        values = (0, start, each)
        statements: list[Statement] = [
            (_SAMPLE, values),
            (_SPANS_OF_SAMPLE, values),
            (_USAGE_OF_SAMPLE, values),
        ]
        traces, spans, usage = await read(statements)
        wanted = summarize_stored(spans)
        for key, rows in by_trace(usage).items():
            if key in wanted:
                take_usage(wanted[key], rows)
        for row in traces:
            key = (row[0], row[1])
            looked_at.add(key)
            wrong = _drift(plain_trace(row, read_list), key, wanted)
            if wrong:
                drifted[key] = wrong
    return len(looked_at), drifted


def _drift(stored: Row, key: TraceKey, wanted: dict[TraceKey, TraceDelta]) -> list[str]:
    delta = wanted.get(key)
    return list(TRACE_COLUMNS) if delta is None else drifted_columns(stored, key, delta)


def _facts(attributes: str | None) -> GenAiFacts | None:
    if attributes is None:
        return None
    return read_facts(msgspec.json.decode(unescape_json(attributes)))
