"""Dead letters on a terminal and as JSON; nothing that was in a span.

Path: storage.dead_letters → cli.dead_letters → [cli.letter_views] → terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from msgtrace.cli.render import open_console, plain_table, print_facts, print_line
from msgtrace.cli.text import clean, counted, exact_local_time, human_size, local_time
from msgtrace.model.dead_letter import DeadLetter, DeadLetterSummary, LetterId
from msgtrace.model.units import rfc3339
from msgtrace.pipeline.replay import Replayed

SHOWN_SPANS = 20
"""More ids of one letter are left to `--json`."""


def letter_json(summary: DeadLetterSummary) -> dict[str, Any]:
    """As `--json` prints it."""
    return {
        "id": summary.letter_id.hex(),
        "refused_at": rfc3339(summary.refused_at_ns),
        "reason": summary.reason,
        "span_count": summary.span_count,
        "encoding": summary.encoding,
        "payload_bytes": summary.payload_bytes,
    }


def print_letters(summaries: Sequence[DeadLetterSummary]) -> None:
    """A table, in the given order."""
    table = plain_table("Refused", "Id", ">Spans", ">Size", "Encoding", "Reason")
    for each in summaries:
        cells = [
            local_time(each.refused_at_ns),
            each.letter_id.hex(),
            f"{each.span_count:,}",
            human_size(each.payload_bytes),
            each.encoding,
            each.reason,
        ]
        table.add_row(*(Text(clean(cell)) for cell in cells))
    open_console().print(table)


def print_letter(letter: DeadLetter) -> None:
    """Why, when, and which spans."""
    console = open_console()
    facts = [
        ("Id", letter.letter_id.hex()),
        ("Refused", exact_local_time(letter.refused_at_ns)),
        ("Reason", letter.reason),
        ("Request", f"{human_size(len(letter.payload))} of {letter.encoding}"),
        ("Spans", f"{len(letter.spans):,} refused"),
    ]
    print_facts(console, [(name, Text(clean(value))) for name, value in facts])
    console.print()
    print_line(console, Text(f"{'Trace':<32}  {'Span':<16}", style="bold"))
    for trace_id, span_id in letter.spans[:SHOWN_SPANS]:
        print_line(console, Text(f"{trace_id.hex()}  {span_id.hex()}"))
    if (more := len(letter.spans) - SHOWN_SPANS) > 0:
        print_line(console, Text(f"and {more:,} more; --json shows all"))


def print_replayed(outcomes: Sequence[tuple[LetterId, Replayed]]) -> None:
    """A line for each letter that was refused again, and the sums."""
    for letter_id, said in outcomes:
        if said.refused_spans:
            spans = counted(said.refused_spans, "span")
            click.echo(f"{letter_id.hex()}: {spans} refused again: {clean(said.reason)}")
    stored = counted(sum(said.new_spans for _, said in outcomes), "span")
    known = sum(said.known_spans for _, said in outcomes)
    there = f", {known:,} already there" if known else ""
    click.echo(f"Replayed {counted(len(outcomes), 'dead letter')}: {stored} stored{there}.")
