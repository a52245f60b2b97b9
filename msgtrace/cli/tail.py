"""`msgtrace tail`: traces as they arrive.

Path: command line → [cli.tail] → cli.client → api. A trace is shown once it has not grown for one
look, and again, marked, if it grows later. Looks go some way back, as spans come late; what is
remembered of shown traces is bounded by the same window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import click
import msgspec
from rich.console import Console
from rich.text import Text

from msgtrace.cli.client import READ_TIMEOUT_S, QueryService, QueryServiceError
from msgtrace.cli.filters import Parameters, filter_options
from msgtrace.cli.render import one_line, open_console, print_line
from msgtrace.cli.replies import TraceSummary
from msgtrace.cli.service_options import service_options
from msgtrace.cli.text import terminal_json
from msgtrace.model.search import MAX_LIMIT
from msgtrace.model.units import NS_PER_S, rfc3339

WINDOW_S = 600
"""How far back a trace may have begun that is still looked at."""


class _Page(msgspec.Struct, frozen=True):
    """GET /api/v1/traces, each trace as it came, for --json."""

    traces: list[msgspec.Raw]


@dataclass(slots=True)
class Follower:
    """Which traces are new, or have grown, from one look to the next."""

    seen: dict[str, int] = field(default_factory=dict)
    """Spans at the look before, by trace."""
    shown: dict[str, int] = field(default_factory=dict)
    """Spans when it was shown."""

    def settled(self, traces: list[TraceSummary]) -> list[tuple[TraceSummary, bool]]:
        """What is to be shown now, oldest first, and whether it was shown before."""
        ready = []
        for trace in reversed(traces):
            is_steady = self.seen.get(trace.trace_id) == trace.span_count
            if is_steady and self.shown.get(trace.trace_id) != trace.span_count:
                ready.append((trace, trace.trace_id in self.shown))
                self.shown[trace.trace_id] = trace.span_count
        self.seen = {trace.trace_id: trace.span_count for trace in traces}
        self.shown = {key: count for key, count in self.shown.items() if key in self.seen}
        return ready

    def skip(self, traces: list[TraceSummary]) -> None:
        """Take these as shown."""
        self.seen = {trace.trace_id: trace.span_count for trace in traces}
        self.shown = dict(self.seen)


@click.command()
@filter_options
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1, max=3_600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many traces.")
@service_options(timeout_s=READ_TIMEOUT_S)
def tail(
    service: QueryService,
    as_json: bool,
    filters: Parameters,
    interval_s: float,
    count: int | None,
) -> None:
    """Show traces as they arrive, until Ctrl-C.

    Takes the filters of `msgtrace list`. A trace is shown when it has stopped growing for one look;
    one that grows later is shown again with a ↻. --json prints a line of JSON each.
    """
    console = open_console()
    follower = Follower()
    raws = _look(service, filters)
    follower.skip([trace for trace, _ in raws])
    left = count
    while left is None or left > 0:
        time.sleep(interval_s)
        try:
            raws = _look(service, filters)
        except QueryServiceError as error:
            click.echo(f"{error.format_message()}; trying again", err=True)
            continue
        of_id = {trace.trace_id: raw for trace, raw in raws}
        for trace, was_shown in follower.settled([trace for trace, _ in raws])[:left]:
            _print(console, trace, of_id[trace.trace_id], was_shown=was_shown, as_json=as_json)
            left = None if left is None else left - 1


def _look(service: QueryService, filters: Parameters) -> list[tuple[TraceSummary, bytes]]:
    """The newest traces of the window, newest first, as they are and as they came."""
    asked = [each for each in filters if each[0] != "start"]
    start_ns = max(time.time_ns() - WINDOW_S * NS_PER_S, 0)
    body = service.get(
        "/api/v1/traces", [*asked, ("start", rfc3339(start_ns)), ("limit", str(MAX_LIMIT))]
    )
    raws = [bytes(raw) for raw in service.decode(body, _Page).traces]
    return [(service.decode(raw, TraceSummary), raw) for raw in raws]


def _print(
    console: Console, trace: TraceSummary, raw: bytes, *, was_shown: bool, as_json: bool
) -> None:
    if as_json:
        click.echo(terminal_json(raw.decode()))
        return
    print_line(
        console,
        Text.assemble(("↻ ", "yellow") if was_shown else "  ", one_line(trace)),
    )
