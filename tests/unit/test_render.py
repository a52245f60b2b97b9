from __future__ import annotations

import json
import unicodedata
from io import StringIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from msgtrace.cli.render import print_settings, print_traces
from msgtrace.cli.replies import Span, SpanNode, SpanStatus, TraceList, TraceTree
from msgtrace.cli.text import clean, human_duration, human_size, terminal_json
from msgtrace.cli.tree import Timeline, print_tree, walk
from msgtrace.settings.sources import explain_settings
from tests.cli.canned import TRACE_A, node, span, summary, trace_list, tree

EVIL = "\x1b[2J\x1b]0;owned\x07 [red]x[/red] :smile: \r\n\u202e\u009b31m\ud800"


def console(width: int) -> Console:
    return Console(file=StringIO(), width=width, highlight=False, markup=False, emoji=False)


def shown(screen: Console) -> str:
    assert isinstance(screen.file, StringIO)
    return screen.file.getvalue()


def show_tree(
    document: dict[str, Any],
    width: int = 80,
    max_spans: int | None = None,
    max_children: int | None = None,
) -> list[str]:
    """The lines of the tree, without the facts above it."""
    screen = console(width)
    parsed = msgspec.convert(document, TraceTree, strict=False)
    print_tree(screen, parsed, max_spans=max_spans, max_children=max_children)
    return shown(screen).split("\n\n", 1)[1].splitlines()


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 µs"),
        (500, "0.5 µs"),
        (845_000, "845 µs"),
        (999_600, "1 ms"),
        (12_500_000, "12.5 ms"),
        (1_234_000_000, "1.23 s"),
        (59_990_000_000, "1m 00s"),
        (125_000_000_000, "2m 05s"),
        (11_520_000_000_000, "3h 12m"),
        (349_200_000_000_000, "4d 01h"),
        (-1_500_000, "-1.5 ms"),
    ],
)
def test_a_duration_is_short_and_has_its_unit(duration_ns: int, text: str) -> None:
    assert human_duration(duration_ns) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1536, "1.5 KiB"),
        (1010 * 1024, "1,010 KiB"),
        (5 * 2**40, "5.0 TiB"),
    ],
)
def test_a_size_has_its_unit(size_bytes: int, text: str) -> None:
    assert human_size(size_bytes) == text


@given(st.text(alphabet=st.characters()))
def test_clean_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    categories = {
        unicodedata.category(character)
        for character in clean(text)
        if character not in "\u200c\u200d"
    }

    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


def test_clean_text_spells_out_what_it_replaces_and_keeps_scripts_and_emoji() -> None:
    assert clean("a\x1b[31m\nb") == r"a\x1b[31m\nb"
    assert clean("日本語 👩‍💻 é") == "日本語 👩‍💻 é"
    assert clean("x" * 10, max_chars=4) == "xxx…"


def test_json_for_a_terminal_is_the_same_value_without_control_characters() -> None:
    document = '{"name": "\u009b31m\x7f é"}'

    assert terminal_json(document).isprintable()
    assert json.loads(terminal_json(document)) == json.loads(document)


@pytest.mark.parametrize("width", [80, 109, 110, 140, 200])
@pytest.mark.parametrize("models", [[], ["a-model-with-a-long-name", "another-one"]])
def test_a_list_fits_the_terminal_and_never_cuts_an_id(width: int, models: list[str]) -> None:
    trace = summary(
        root_span_name=EVIL * 5,
        service_name="service" * 20,
        span_count=1_234,
        error_count=56,
        models=models,
    )
    screen = console(width)

    print_traces(screen, msgspec.convert(trace_list(trace), TraceList, strict=False))

    lines = shown(screen).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert sum(TRACE_A in line for line in lines) == 1
    assert "\x1b" not in shown(screen)
    assert "[red]x[/red] :smile:" in shown(screen) or width >= 110


@pytest.mark.parametrize("width", [80, 140])
def test_settings_name_every_variable(width: int) -> None:
    rows = explain_settings()
    screen = console(width)

    print_settings(screen, rows)

    assert all(row.variable in shown(screen) for row in rows)


def test_tree_draws_guides_services_errors_and_bars() -> None:
    document = tree(
        node(
            span("GET /cart", lasts_ms=10),
            node(
                span("check", at_ms=0, lasts_ms=5),
                node(span("SELECT", at_ms=2.5, lasts_ms=2.5, service="stock")),
            ),
            node(span("pay", at_ms=5, lasts_ms=5, error="refused")),
            relation="root",
        )
    )

    lines = show_tree(document)

    bar = 80 - 8 - 4 - cell_len("│  └─ SELECT  stock")
    cells = min(bar, 48)
    assert lines == [
        f"GET /cart  shop         10 ms  {'█' * cells}",
        f"├─ check                 5 ms  {'█' * (cells // 2)}",
        f"│  └─ SELECT  stock    2.5 ms  {' ' * (cells // 4)}{'█' * (cells // 4)}",
        f"└─ ✗ pay                 5 ms  {' ' * (cells // 2)}{'█' * (cells // 2)}",
        "      refused",
    ]


@pytest.mark.parametrize("relation", ["orphan", "cycle", "deep"])
def test_tree_marks_a_span_that_does_not_stand_under_its_parent(relation: str) -> None:
    (line,) = show_tree(tree(node(span("lonely"), relation=relation)))

    assert line.startswith(f"({relation}) lonely  shop")


def test_tree_neutralises_what_senders_wrote() -> None:
    evil = span(EVIL, service=EVIL, error=EVIL)

    text = "\n".join(show_tree(tree(node(evil, relation=EVIL)), width=1_000))

    assert text.replace("\n", "").isprintable()
    assert r"\x1b[2J\x1b]0;owned\x07 [red]x[/red] :smile: \r\n\u202e\x9b31m\ud800" in text


@pytest.mark.parametrize("width", [20, 80, 140])
def test_a_deep_tree_fits_the_terminal_and_tells_the_depth(width: int) -> None:
    document = node(span("leaf"))
    for _ in range(200):
        document = node(span("level"), document)

    lines = show_tree(tree(document), width=width)

    assert len(lines) == 201
    assert max(cell_len(line) for line in lines) <= width
    assert width < 80 or (lines[-1].startswith("…200") and "leaf" in lines[-1])


def test_a_tree_deeper_than_the_interpreter_recurses_is_walked() -> None:
    bottom = Span(
        name="x",
        service_name="s",
        start_time_unix_nano=0,
        end_time_unix_nano=0,
        status=SpanStatus(status_code="OK"),
    )
    deep = SpanNode(span=bottom, relation="child", children=[])
    for _ in range(5_000):
        deep = SpanNode(span=bottom, relation="child", children=[deep])

    assert sum(1 for _ in walk([deep])) == 5_001


def test_a_tree_is_cut_where_told() -> None:
    document = tree(node(span(), *[node(span(f"child {n}")) for n in range(9)], relation="root"))

    lines = show_tree(document, max_spans=4)

    assert len(lines) == 5
    assert lines[-1] == "… 6 more spans; --all shows them"


def named_family(name: str, count: int) -> list[dict[str, Any]]:
    return [node(span(f"{name} {n}")) for n in range(count)]


def test_of_many_children_the_first_are_shown_and_the_others_counted() -> None:
    family = [*named_family("child", 4), node(span("last"), *named_family("grandchild", 2))]

    lines = show_tree(tree(node(span("root"), *family, relation="root")), max_children=3)

    assert [line.split("  ")[0] for line in lines[:5]] == [
        "root",
        "├─ child 0",
        "├─ child 1",
        "├─ child 2",
        "└─ … 2 more (4 spans with theirs)",
    ]
    assert lines[5] == "--children N shows more of what is folded, --all everything"


def test_a_fold_says_that_there_are_errors_in_it() -> None:
    failed = span("failed", error="no")
    family = [*named_family("child", 3), node(failed)]

    lines = show_tree(tree(node(span("root"), *family, relation="root")), max_children=2)

    assert "└─ … 2 more (1 error)" in lines


def test_a_single_child_is_not_folded() -> None:
    lines = show_tree(
        tree(node(span("root"), *named_family("child", 3), relation="root")), max_children=2
    )

    assert len(lines) == 4
    assert "└─ child 2" in lines[3]


def test_many_roots_are_folded_as_well() -> None:
    lines = show_tree(tree(*named_family("root", 60)), max_children=50)

    assert lines[50] == "… 10 more"


TIMES = st.integers(min_value=0, max_value=2**63 - 1)


@given(times=st.tuples(TIMES, TIMES, TIMES, TIMES), cells=st.integers(1, 60))
def test_a_bar_has_at_least_one_cell_and_stays_inside(
    times: tuple[int, int, int, int], cells: int
) -> None:
    trace_start_ns, trace_end_ns, start_ns, end_ns = times
    sent = Span(
        name="x",
        service_name="s",
        start_time_unix_nano=start_ns,
        end_time_unix_nano=end_ns,
        status=SpanStatus(status_code=7),
    )

    bar = Timeline(trace_start_ns, trace_end_ns, cells).bar(sent)

    assert bar.endswith("█")
    assert len(bar) <= cells
    assert set(bar.strip()) == {"█"}


def test_a_trace_without_spans_is_said_to_have_none() -> None:
    screen = console(80)

    print_tree(screen, TraceTree(trace_id=TRACE_A, roots=[]), max_spans=None, max_children=None)

    assert shown(screen) == f"Trace {TRACE_A} has no spans.\n"
