"""The span tree of one trace with a time bar for each span.

Path: cli.replies → [cli.tree] → terminal. Nothing here recurses: a trace is as deep as its sender
made it. A span with a skewed clock or a negative duration still gets its line and its bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.console import Console
from rich.text import Text

from msgtrace.cli.messages import TraceMessages
from msgtrace.cli.operations import icon_of, legend_of
from msgtrace.cli.render import (
    COST_STYLE,
    ERROR_STYLE,
    MODEL_STYLE,
    QUIET_STYLE,
    SERVICE_STYLE,
    WORKFLOW_STYLE,
    describe_cost,
    describe_tokens,
    print_facts,
    print_line,
    print_sentence,
)
from msgtrace.cli.replies import Span, SpanNode, TraceSummary, TraceTree
from msgtrace.cli.text import (
    clean,
    counted,
    exact_local_time,
    human_cost,
    human_duration,
    human_tokens,
)

MAX_SPANS_SHOWN = 1_000
MAX_CHILDREN_SHOWN = 50

_BRANCH, _LAST_BRANCH, _TRUNK, _BLANK = "├─ ", "└─ ", "│  ", "   "
_GUIDE_CELLS = 3
_DURATION_CELLS = 8
_MIN_BAR_CELLS = 16
_MAX_BAR_CELLS = 48
_FIGURES_MIN_WIDTH = 60


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A span in its place. guides stand before its name, guides_below before its description."""

    node: SpanNode
    guides: str
    guides_below: str
    shows_service: bool


@dataclass(frozen=True, slots=True)
class FoldLine:
    """Siblings that are left out: so many, with all that stands below them."""

    guides: str
    siblings: int
    spans: int
    errors: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The time of a trace laid over `cells` terminal cells."""

    start_ns: int
    end_ns: int
    cells: int

    def bar(self, span: Span) -> str:
        """Blanks, then the span's share of the time: at least one cell, all within `cells`."""
        whole_ns = max(self.end_ns - self.start_ns, 1)
        first = (span.start_time_unix_nano - self.start_ns) * self.cells // whole_ns
        past = -((self.start_ns - span.end_time_unix_nano) * self.cells // whole_ns)  # rounded up
        first = min(max(first, 0), self.cells - 1)
        past = min(max(past, first + 1), self.cells)
        return " " * first + "█" * (past - first)


@dataclass(frozen=True, slots=True)
class Figures:
    """The columns of tokens and cost, as wide as needed.

    There are none without figures, and on a narrow terminal.
    """

    tokens_cells: int
    cost_cells: int

    @classmethod
    def of(cls, lines: Sequence[TreeLine | FoldLine], console_width: int) -> Figures:
        """The columns for these lines."""
        if console_width < _FIGURES_MIN_WIDTH:
            return cls(0, 0)
        nodes = [line.node for line in lines if isinstance(line, TreeLine)]
        return cls(
            max((len(_tokens(node)) for node in nodes), default=0),
            max((len(_cost(node)) for node in nodes), default=0),
        )

    @property
    def cells(self) -> int:
        """What they take, with their gaps."""
        return sum(cells + 2 for cells in (self.tokens_cells, self.cost_cells) if cells)

    def cell(self, node: SpanNode) -> Text:
        """The figures of one span, with their gaps; quiet where they are those of spans beneath."""
        text = Text(style="" if node.usage is not None else QUIET_STYLE)
        if self.tokens_cells:
            text.append(f"  {_tokens(node):>{self.tokens_cells}}")
        if self.cost_cells:
            text.append(f"  {_cost(node):>{self.cost_cells}}", style=COST_STYLE)
        return text


def _tokens(node: SpanNode) -> str:
    return human_tokens(node.subtree.input_tokens, node.subtree.output_tokens)


def _cost(node: SpanNode) -> str:
    return human_cost(node.subtree.cost, node.subtree.estimated_cost)


def print_tree(
    console: Console,
    tree: TraceTree,
    *,
    max_spans: int | None,
    max_children: int | None,
    shows_messages: bool = False,
) -> None:
    """Facts about the trace, then its spans in order.

    max_spans, max_children: lines in all, and children of one span, that are printed; None prints
    all.
    """
    nodes = list(_every_node(tree.roots))
    spans = [node.span for node in nodes]
    if not spans:
        print_sentence(console, f"Trace {clean(tree.trace_id)} has no spans.")
        return
    start_ns = min(span.start_time_unix_nano for span in spans)
    end_ns = max(max(span.start_time_unix_nano, span.end_time_unix_nano) for span in spans)
    print_facts(console, _facts(tree, nodes, start_ns, end_ns))
    console.print()
    lines = list(islice(walk(tree.roots, max_children), max_spans))
    told = TraceMessages(spans) if shows_messages else None
    _print_lines(console, lines, start_ns, end_ns, told)
    accounted = sum(line.spans if isinstance(line, FoldLine) else 1 for line in lines)
    if accounted < len(spans):
        rest = counted(len(spans) - accounted, "more span")
        print_sentence(console, f"… {rest}; --all shows them", style=QUIET_STYLE)
    elif any(isinstance(line, FoldLine) for line in lines):
        sentence = "--children N shows more of what is folded, --all everything"
        print_sentence(console, sentence, style=QUIET_STYLE)
    if legend := legend_of(node.operation for node in nodes):
        console.print()
        print_line(console, legend)


def walk(
    roots: Sequence[SpanNode], max_children: int | None = None
) -> Iterator[TreeLine | FoldLine]:
    """Every span once, a parent before its children, with the guide lines of its place.

    Of more than `max_children` siblings the last ones are folded into one line.
    """
    waiting: list[tuple[SpanNode | FoldLine, str, str, str]] = []
    _put(waiting, roots, max_children, "", "", is_top=True)
    while waiting:
        node, guides, base, parent_service = waiting.pop()
        if isinstance(node, FoldLine):
            yield node
            continue
        service = node.span.service_name
        below = base + (_TRUNK if node.children else _BLANK)
        yield TreeLine(node, guides, below, service != parent_service)
        _put(waiting, node.children, max_children, base, service)


def _put(
    waiting: list[tuple[SpanNode | FoldLine, str, str, str]],
    siblings: Sequence[SpanNode],
    max_children: int | None,
    base: str,
    parent_service: str,
    *,
    is_top: bool = False,
) -> None:
    """Siblings come next, in their order."""
    # A fold of one would take the line of the one.
    is_folded = max_children is not None and len(siblings) > max_children + 1
    shown = siblings[:max_children] if is_folded else siblings
    branch, last = ("", "") if is_top else (_BRANCH, _LAST_BRANCH)
    trunk, blank = ("", "") if is_top else (_TRUNK, _BLANK)
    if is_folded:
        waiting.append((_fold(siblings[len(shown) :], base + last), "", "", ""))
    for node in reversed(shown):
        is_last = not is_folded and node is shown[-1]
        guides, trunks = (last, blank) if is_last else (branch, trunk)
        waiting.append((node, base + guides, base + trunks, parent_service))


def _fold(siblings: Sequence[SpanNode], guides: str) -> FoldLine:
    spans = errors = 0
    for node in _every_node(siblings):
        spans += 1
        errors += node.span.is_error
    return FoldLine(guides, len(siblings), spans, errors)


def _every_node(roots: Sequence[SpanNode]) -> Iterator[SpanNode]:
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children


def _facts(
    tree: TraceTree, nodes: Sequence[SpanNode], start_ns: int, end_ns: int
) -> list[tuple[str, Text]]:
    errors = sum(node.span.is_error for node in nodes)
    services = sorted({node.span.service_name for node in nodes})
    folded = max(tree.span_count - len(nodes), 0)
    count = f"{len(nodes) + folded:,}"
    if folded:
        count += f" ({counted(folded, 'wrapper')} folded; --unfold shows them)"
    facts = [
        ("Trace", Text(clean(tree.trace_id))),
        ("Start", Text(exact_local_time(start_ns))),
        ("Duration", Text(human_duration(end_ns - start_ns))),
        ("Spans", Text(count)),
        ("Errors", Text(f"{errors:,}", style=ERROR_STYLE if errors else "")),
        ("Services", Text(clean(", ".join(services)), style=SERVICE_STYLE)),
    ]
    return facts + (_model_facts(tree.summary) if tree.summary else [])


def _model_facts(summary: TraceSummary) -> list[tuple[str, Text]]:
    facts = [
        ("Workflow", summary.workflow_name, WORKFLOW_STYLE),
        ("Session", summary.session_id, ""),
        ("User", summary.user_id, ""),
    ]
    if summary.uses_models:
        facts += [
            ("Models", ", ".join(summary.models), MODEL_STYLE),
            ("Tokens", describe_tokens(summary), ""),
            ("Cost", describe_cost(summary), COST_STYLE),
        ]
    return [(name, Text(clean(text), style=style)) for name, text, style in facts if text]


def _print_lines(
    console: Console,
    lines: Sequence[TreeLine | FoldLine],
    start_ns: int,
    end_ns: int,
    told: TraceMessages | None,
) -> None:
    figures = Figures.of(lines, console.width)
    beside_bar = console.width - _DURATION_CELLS - 4 - figures.cells  # two gaps of two cells
    room = max(beside_bar - max(_MIN_BAR_CELLS, beside_bar // 3), _GUIDE_CELLS)
    labels = [_label(line, room) for line in lines]
    width = min(max(label.cell_len for label in labels), room)
    timeline = Timeline(start_ns, end_ns, max(1, min(_MAX_BAR_CELLS, beside_bar - width)))
    for line, label in zip(lines, labels, strict=True):
        if isinstance(line, FoldLine):
            print_line(console, label)
            continue
        label.truncate(width, overflow="ellipsis", pad=True)
        _print_span(console, line, label, figures, timeline)
        _print_description(console, line, room)
        if told is not None:
            guides = Text(_fit_guides(line.guides_below, room), style=QUIET_STYLE)
            told.print_of(console, line.node, guides)


def _fold_label(fold: FoldLine, room: int) -> Text:
    """… 4,980 more (12,004 spans with theirs, 3 errors)"""
    details = []
    if fold.spans > fold.siblings:
        details.append(f"{counted(fold.spans, 'span')} with theirs")
    if fold.errors:
        details.append(counted(fold.errors, "error"))
    more = f"… {fold.siblings:,} more" + (f" ({', '.join(details)})" if details else "")
    style = ERROR_STYLE if fold.errors else QUIET_STYLE
    return Text.assemble((_fit_guides(fold.guides, room), QUIET_STYLE), (more, style))


def _label(line: TreeLine | FoldLine, room: int) -> Text:
    if isinstance(line, FoldLine):
        return _fold_label(line, room)
    node = line.node
    span = node.span
    label = Text.assemble((_fit_guides(line.guides, room), QUIET_STYLE))
    if span.is_error:
        label.append("✗ ", style=ERROR_STYLE)
    if node.relation not in ("root", "child"):
        label.append(f"({clean(node.relation)}) ", style="yellow")
    label.append_text(icon_of(node.operation))
    label.append(clean(span.name), style=ERROR_STYLE if span.is_error else "")
    if line.shows_service:
        label.append(f"  {clean(span.service_name)}", style=SERVICE_STYLE)
    if node.usage is not None and node.usage.model and node.usage.model not in span.name:
        label.append(f"  {clean(node.usage.model)}", style=MODEL_STYLE)
    return label


def _fit_guides(guides: str, room: int) -> str:
    """Guides that leave half of the room to the name; deeper ones begin with … and the depth."""
    most = max(room // 2 // _GUIDE_CELLS, 2) * _GUIDE_CELLS
    if len(guides) <= most:
        return guides
    depth = f"…{len(guides) // _GUIDE_CELLS}".ljust(2 * _GUIDE_CELLS)
    return depth + guides[len(guides) - most + 2 * _GUIDE_CELLS :]


def _print_span(
    console: Console, line: TreeLine, label: Text, figures: Figures, timeline: Timeline
) -> None:
    span = line.node.span
    bar_style = "red" if span.is_error else "green"
    duration = f"{human_duration(span.duration_ns):>{_DURATION_CELLS}}"
    row = Text.assemble(
        label, "  ", duration, figures.cell(line.node), "  ", (timeline.bar(span), bar_style)
    )
    print_line(console, row)


def _print_description(console: Console, line: TreeLine, room: int) -> None:
    span = line.node.span
    if span.is_error and span.status.description:
        guides = _fit_guides(line.guides_below, room)
        description = clean(span.status.description)
        print_line(console, Text.assemble((guides, QUIET_STYLE), (description, "red")))
