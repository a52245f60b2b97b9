from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from msgtrace.model.span import Span
from msgtrace.query.tree import MAX_DEPTH, TreeNode, build_forest
from tests.stored import span_id, stored_span
from tests.work import calls_of

Shape = list[tuple[str, str, "Shape"]]
"""(name, relation, children) of nodes, for comparison."""


def make_span(number: int, parent: int | None = None, start: int = 0, name: str = "") -> Span:
    return stored_span(
        span_id=span_id(number),
        parent_span_id=None if parent is None else span_id(parent),
        start_time_ns=start,
        name=name or str(number),
    )


def shape(nodes: Sequence[TreeNode[Span]]) -> Shape:
    return [(node.span.name, node.relation, shape(node.children)) for node in nodes]


def walk(roots: Sequence[TreeNode[Span]]) -> Iterator[tuple[int, TreeNode[Span]]]:
    """Every node with its depth; roots are at 0."""
    waiting = [(0, node) for node in roots]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        waiting.extend((depth + 1, child) for child in node.children)


def chain(length: int) -> list[Span]:
    """1 ← 2 ← 3 …, all at the same time."""
    return [
        make_span(number, number - 1 if number > 1 else None) for number in range(1, length + 1)
    ]


def test_children_stand_below_their_parent() -> None:
    forest = build_forest([make_span(1), make_span(2, parent=1), make_span(3, parent=2)])

    assert shape(forest) == [("1", "root", [("2", "child", [("3", "child", [])])])]


def test_no_spans_make_an_empty_forest() -> None:
    assert build_forest([]) == []


def test_siblings_are_ordered_by_start_then_span_id() -> None:
    spans = [
        make_span(1),
        make_span(5, parent=1, start=20),
        make_span(4, parent=1, start=10),
        make_span(3, parent=1, start=10),
        make_span(2, parent=1, start=30),
    ]

    [root] = build_forest(spans)

    assert [child.span.name for child in root.children] == ["3", "4", "5", "2"]


def test_several_roots_and_orphans_are_ordered_together() -> None:
    spans = [make_span(3, start=3), make_span(2, parent=99, start=2), make_span(1, start=1)]

    assert shape(build_forest(spans)) == [("1", "root", []), ("2", "orphan", []), ("3", "root", [])]


def test_children_of_an_orphan_stay_below_it() -> None:
    forest = build_forest([make_span(1, parent=99), make_span(2, parent=1)])

    assert shape(forest) == [("1", "orphan", [("2", "child", [])])]


def test_a_child_that_starts_before_its_parent_stays_below_it() -> None:
    forest = build_forest([make_span(1, start=10), make_span(2, parent=1, start=5)])

    assert shape(forest) == [("1", "root", [("2", "child", [])])]


def test_a_ring_is_cut_open_at_its_earliest_span() -> None:
    spans = [
        make_span(1, parent=3, start=30),
        make_span(2, parent=1, start=10),
        make_span(3, parent=2, start=20),
    ]

    assert shape(build_forest(spans)) == [
        ("2", "cycle", [("3", "child", [("1", "child", [])])]),
    ]


def test_spans_that_hang_off_a_ring_stay_below_it() -> None:
    spans = [
        make_span(1, parent=2, start=10),
        make_span(2, parent=1, start=20),
        make_span(3, parent=2, start=1),
    ]

    assert shape(build_forest(spans)) == [
        ("1", "cycle", [("2", "child", [("3", "child", [])])]),
    ]


def test_every_ring_of_several_is_cut_open() -> None:
    spans = [
        make_span(1, parent=2),
        make_span(2, parent=1),
        make_span(3, parent=4),
        make_span(4, parent=3),
    ]

    assert [node.relation for node in build_forest(spans)] == ["cycle", "cycle"]


def test_a_span_that_names_itself_is_a_ring_of_one() -> None:
    forest = build_forest([make_span(1, parent=1), make_span(2, parent=1)])

    assert shape(forest) == [("1", "cycle", [("2", "child", [])])]


def test_children_of_a_repeated_span_id_stand_below_the_earliest_span() -> None:
    spans = [
        make_span(1, start=20, name="late"),
        make_span(1, start=10, name="early"),
        make_span(2, parent=1, start=30),
    ]

    assert shape(build_forest(spans)) == [
        ("early", "root", [("2", "child", [])]),
        ("late", "root", []),
    ]


def test_a_ring_through_a_repeated_span_id_keeps_every_span() -> None:
    spans = [
        make_span(1, parent=2, start=10, name="early"),
        make_span(1, parent=2, start=20, name="late"),
        make_span(2, parent=1, start=5),
    ]

    assert shape(build_forest(spans)) == [
        ("2", "cycle", [("early", "child", []), ("late", "child", [])]),
    ]


def test_spans_below_the_limit_become_children_of_their_ancestor_at_it() -> None:
    assert shape(build_forest(chain(5), max_depth=3)) == [
        ("1", "root", [("2", "child", [("3", "child", [("4", "deep", []), ("5", "deep", [])])])])
    ]


def test_deep_spans_of_several_branches_are_ordered_as_siblings() -> None:
    spans = [
        make_span(1),
        make_span(2, parent=1, start=1),
        make_span(3, parent=1, start=2),
        make_span(4, parent=2, start=9),
        make_span(5, parent=3, start=5),
    ]

    [root] = build_forest(spans, max_depth=1)

    assert [node.span.name for node in root.children] == ["2", "3", "5", "4"]


def test_a_trace_as_deep_as_the_limit_has_no_deep_spans() -> None:
    relations = {node.relation for _, node in walk(build_forest(chain(MAX_DEPTH)))}

    assert relations == {"root", "child"}


def test_the_work_for_a_chain_grows_as_its_length() -> None:
    short, long = chain(1_000)[::-1], chain(4_000)[::-1]

    assert calls_of(lambda: build_forest(long)) < 4.5 * calls_of(lambda: build_forest(short))


def test_a_chain_of_fifty_thousand_spans_is_built() -> None:
    forest = build_forest(reversed(chain(50_000)))

    depths = [depth for depth, _ in walk(forest)]
    assert len(depths) == 50_000
    assert max(depths) == MAX_DEPTH


def test_a_ring_of_fifty_thousand_spans_is_cut_once() -> None:
    spans = [make_span(1, parent=50_000), *chain(50_000)[1:]]

    nodes = [node for _, node in walk(build_forest(spans))]

    assert len(nodes) == 50_000
    assert [node.span.name for node in nodes if node.relation == "cycle"] == ["1"]


# Few ids and times, so that rings, repeated ids, self-parents and ties are common.
small = st.integers(0, 12)
any_spans = st.lists(
    st.builds(make_span, small, parent=st.none() | small, start=st.integers(0, 3)),
    max_size=40,
    unique_by=lambda span: (span.start_time_ns, span.span_id),
)


@given(any_spans, st.integers(1, 6))
def test_every_span_stands_in_the_forest_exactly_once(spans: list[Span], max_depth: int) -> None:
    placed = [id(node.span) for _, node in walk(build_forest(spans, max_depth))]

    assert sorted(placed) == sorted(id(span) for span in spans)


@given(any_spans, st.integers(1, 6))
def test_no_span_stands_deeper_than_the_limit(spans: list[Span], max_depth: int) -> None:
    for depth, node in walk(build_forest(spans, max_depth)):
        assert depth <= max_depth
        assert (node.relation == "deep") == (depth == max_depth)


@given(any_spans, st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_forest_does_not_depend_on_the_order_of_arrival(
    spans: list[Span], max_depth: int, random: Random
) -> None:
    shuffled = random.sample(spans, len(spans))

    assert shape(build_forest(shuffled, max_depth)) == shape(build_forest(spans, max_depth))


@given(any_spans)
def test_a_child_stands_below_a_span_with_the_id_it_names(spans: list[Span]) -> None:
    for _, node in walk(build_forest(spans)):
        for child in node.children:
            assert child.span.parent_span_id == node.span.span_id


@given(any_spans)
def test_siblings_are_always_in_order(spans: list[Span]) -> None:
    forest = build_forest(spans)

    for siblings in [forest, *(node.children for _, node in walk(forest))]:
        keys = [(node.span.start_time_ns, node.span.span_id) for node in siblings]
        assert keys == sorted(keys)


@given(any_spans)
def test_the_relation_of_a_top_span_says_why_it_is_there(spans: list[Span]) -> None:
    stored_ids = {span.span_id for span in spans}

    for node in build_forest(spans):
        parent = node.span.parent_span_id
        expected = "root" if parent is None else "cycle" if parent in stored_ids else "orphan"
        assert node.relation == expected
