"""Rich views of lists, sums and settings; the span tree has its own module.

Path: cli.replies → [cli.render] → terminal. On a terminal rows fit the width; in a pipe nothing is
cut or wrapped. Every text is a `Text` of cleaned characters, so that rich reads no markup in it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msgtrace.cli.replies import (
    SessionSummary,
    TraceList,
    TraceStats,
    TraceSummary,
    UsageGroup,
)
from msgtrace.cli.text import (
    clean,
    counted,
    human_cost,
    human_duration,
    human_tokens,
    local_time,
    terminal_json,
)
from msgtrace.model.units import NS_PER_MS
from msgtrace.settings.sources import SettingRow

PIPE_WIDTH = 100_000
TABLE_MIN_WIDTH = 110
"""Below it a row takes two lines: an id is never cut, and little else fits beside it."""
_MODEL_COLUMNS_WIDTH = 60
_MODEL_HEADINGS = ("Workflow", "Models", ">Tokens in/out", ">Cost")
"""Of which the first is left out where no trace has a workflow."""

ERROR_STYLE = "bold red"
QUIET_STYLE = "dim"
SERVICE_STYLE = "cyan"
WORKFLOW_STYLE = "magenta"
MODEL_STYLE = "blue"
COST_STYLE = "yellow"


def open_console() -> Console:
    """Standard output, as wide as the terminal or as wide as needed in a pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an ASCII terminal shows ? instead of failing
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_json(document: bytes) -> None:
    """The document as it came and a line end; on a terminal without characters that steer it."""
    if sys.stdout.isatty():
        click.echo(terminal_json(document.decode()))
    else:
        click.echo(document)


def print_line(console: Console, line: Text) -> None:
    """One line, cut to a terminal's width."""
    line.truncate(console.width, overflow="ellipsis")
    console.print(line, soft_wrap=True)


def print_sentence(console: Console, *sentences: str, style: str = "") -> None:
    """Prose, wrapped at words."""
    console.print(Text(" ".join(sentences), style=style))


def print_traces(console: Console, page: TraceList) -> None:
    """One page of traces: a table, or two lines a trace on a narrow terminal."""
    print_trace_rows(console, page.traces)


def print_trace_rows(console: Console, traces: Sequence[TraceSummary]) -> None:
    """As `print_traces`."""
    has_models = any(trace.uses_models for trace in traces)
    if console.width < TABLE_MIN_WIDTH + (_MODEL_COLUMNS_WIDTH if has_models else 0):
        _print_stacked_traces(console, traces)
    else:
        console.print(_trace_table(traces, has_models=has_models))


def describe_total(page: TraceList) -> str:
    """100 of 1,234 traces."""
    at_least = "" if page.total_is_exact else "more than "
    return f"{len(page.traces):,} of {at_least}{counted(page.total, 'trace')}"


def _trace_table(traces: Sequence[TraceSummary], *, has_models: bool) -> Table:
    table = plain_table("Start", "Trace", "Root span", "Service", ">Duration", ">Spans", ">Errors")
    first_cell = 0 if any(trace.workflow_name for trace in traces) else 1
    if has_models:
        _add_columns(table, *_MODEL_HEADINGS[first_cell:])
    for trace in traces:
        cells = [
            Text(local_time(trace.start_time_unix_nano), style=QUIET_STYLE),
            Text(clean(trace.trace_id)),
            _fitting(trace.root_span_name, style="bold"),
            _fitting(trace.service_name, style=SERVICE_STYLE),
            Text(human_duration(trace.duration_ns)),
            Text(f"{trace.span_count:,}"),
            _error_count(trace.error_count),
        ]
        table.add_row(*cells, *(_model_cells(trace)[first_cell:] if has_models else ()))
    return table


def plain_table(*headings: str) -> Table:
    """A table without lines. A heading with > before it stands over figures."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    _add_columns(table, *headings)
    return table


def _add_columns(table: Table, *headings: str) -> None:
    """Add columns; > before a heading stands over figures. Only columns of names shrink."""
    for heading in headings:
        name = heading.removeprefix(">")
        table.add_column(
            Text(name, no_wrap=True),
            justify="right" if name != heading else "left",
            no_wrap=name not in ("Root span", "Service", "Workflow", "Models", "Meaning", "Reason"),
        )


def _fitting(text: str, style: str = "") -> Text:
    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def _error_count(count: int) -> Text:
    return Text(f"{count:,}", style=ERROR_STYLE if count else QUIET_STYLE)


def _model_cells(trace: TraceSummary) -> tuple[Text, ...]:
    return (
        _fitting(trace.workflow_name or "", style=WORKFLOW_STYLE),
        _fitting(", ".join(trace.models), style=MODEL_STYLE),
        Text(human_tokens(trace.input_tokens, trace.output_tokens)),
        Text(human_cost(trace.cost, trace.estimated_cost), style=COST_STYLE),
    )


def _print_stacked_traces(console: Console, traces: Iterable[TraceSummary]) -> None:
    head = f"{'Start':<19}  {'Trace':<32}  {'Duration':>8}  {'Spans':>5}  {'Errors':>6}"
    print_line(console, Text(head, style="bold"))
    for trace in traces:
        print_line(console, _figures_line(trace))
        print_line(console, _names_line(trace))


def _figures_line(trace: TraceSummary) -> Text:
    errors = _error_count(trace.error_count)
    errors.pad_left(max(0, 6 - errors.cell_len))
    return Text.assemble(
        (local_time(trace.start_time_unix_nano), QUIET_STYLE),
        f"  {clean(trace.trace_id)}  {human_duration(trace.duration_ns):>8}",
        f"  {trace.span_count:>5,}  ",
        errors,
    )


def one_line(trace: TraceSummary) -> Text:
    """A trace on one line: when, which, how long, what."""
    line = Text.assemble(
        (local_time(trace.start_time_unix_nano), QUIET_STYLE),
        f"  {clean(trace.trace_id)}  {human_duration(trace.duration_ns):>8}",
    )
    line.append_text(_names_line(trace))
    if trace.error_count:
        line.append(f"  {counted(trace.error_count, 'error')}", style=ERROR_STYLE)
    return line


def _names_line(trace: TraceSummary) -> Text:
    line = Text.assemble(
        "  ",
        (clean(trace.root_span_name), "bold"),
        "  ",
        (clean(trace.service_name), SERVICE_STYLE),
    )
    if trace.uses_models:
        workflow, models, tokens, cost = _model_cells(trace)
        tokens.append(" tokens" if tokens.plain else "")
        for cell in (tokens, cost, workflow, models):  # what is cut is what is cut best
            line.append_text(Text.assemble("  ", cell) if cell.plain else Text())
    return line


def print_stats(console: Console, stats: TraceStats) -> None:
    """Sums over the matching traces."""
    errors = f"{stats.traces_with_errors:,} with errors ({stats.error_rate:.1%})"
    percentiles = stats.duration_ms
    rows = [
        ("Traces", f"{stats.total_traces:,}", errors if stats.traces_with_errors else ""),
        ("Spans", f"{stats.total_spans:,}", _span_errors(stats.total_errors)),
        ("Duration", f"p50 {_percentile(percentiles.p50)}", ""),
        ("", f"p95 {_percentile(percentiles.p95)}", ""),
        ("", f"p99 {_percentile(percentiles.p99)}", ""),
    ]
    if stats.input_tokens or stats.output_tokens or stats.cost:
        rows.append(("Tokens", describe_tokens(stats), ""))
        rows.append(("Cost", describe_cost(stats), ""))
    print_facts(console, [(name, Text.assemble(a, "  ", (b, ERROR_STYLE))) for name, a, b in rows])


def print_models(console: Console, groups: Sequence[UsageGroup]) -> None:
    """Tokens and cost of each model."""
    table = plain_table("Model", ">Calls", ">Tokens in/out", ">Cost")
    for group in groups:
        table.add_row(
            _fitting(group.name or "(no model)", style=MODEL_STYLE),
            Text(f"{group.model_calls:,}"),
            Text(human_tokens(group.input_tokens, group.output_tokens)),
            Text(human_cost(group.cost, group.estimated_cost), style=COST_STYLE),
        )
    console.print(table)


def describe_tokens(sums: TraceStats | TraceSummary | SessionSummary) -> str:
    """600 in (320 cached), 155 out (40 reasoning)."""
    cached = f" ({sums.cached_tokens:,} cached)" if sums.cached_tokens else ""
    reasoning = f" ({sums.reasoning_tokens:,} reasoning)" if sums.reasoning_tokens else ""
    return f"{sums.input_tokens:,} in{cached}, {sums.output_tokens:,} out{reasoning}"


def describe_cost(sums: TraceStats | TraceSummary | SessionSummary) -> str:
    """0.0017, of which 0.00036 is estimated."""
    cost = human_cost(sums.cost, 0) or "0"
    if not sums.estimated_cost:
        return cost
    if sums.estimated_cost >= sums.cost:
        return f"{cost} (estimated)"
    return f"{cost} ({human_cost(sums.estimated_cost, 0)} of it estimated)"


def _span_errors(count: int) -> str:
    return counted(count, "error") if count else ""


def _percentile(duration_ms: float | None) -> str:
    return "-" if duration_ms is None else human_duration(round(duration_ms * NS_PER_MS))


def print_facts(console: Console, facts: Sequence[tuple[str, Text]]) -> None:
    """Names in bold and their values, aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        line = Text.assemble((name.ljust(width), "bold"), "  ", value)
        line.rstrip()
        console.print(line, soft_wrap=True)


def print_settings(console: Console, rows: Sequence[SettingRow]) -> None:
    """Every setting with its value, its source and its meaning."""
    if console.width < TABLE_MIN_WIDTH:
        _print_stacked_settings(console, rows)
        return
    table = plain_table("Variable", "Value", "Source", "Meaning")
    for row in rows:
        table.add_row(
            Text(row.variable), _value(row), Text(row.source), Text(row.help, style=QUIET_STYLE)
        )
    console.print(table)


def _print_stacked_settings(console: Console, rows: Sequence[SettingRow]) -> None:
    for row in rows:
        head = Text.assemble((row.variable, "bold"), " = ", _value(row), f"  ({row.source})")
        console.print(head, soft_wrap=True)
        console.print(Text(row.help, style=QUIET_STYLE))


def _value(row: SettingRow) -> Text:
    style = QUIET_STYLE if row.source == "default" else "green"
    return Text(clean(row.value, max_chars=1_000) or "(none)", style=style)
