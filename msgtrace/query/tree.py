"""Put the spans of one trace into a forest.

Path: storage → [query.tree] → api.views.
Every span stands in the forest exactly once, whatever its parent link says, and at most `max_depth`
levels below a root. The order in which the spans come in does not matter.
Pure: no I/O; and no recursion, so that a chain of 50,000 spans costs what a flat trace costs.
Not here: the JSON of a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from msgtrace.model.span import SpanId

MAX_DEPTH = 200
"""No span stands further below a root. Many JSON readers stop at 1000 levels; a span takes two."""

Relation = Literal["root", "child", "orphan", "cycle", "deep"]


class Placed(Protocol):
    """What the forest must know of a span."""

    @property
    def span_id(self) -> SpanId:
        """8 bytes."""
        ...

    @property
    def parent_span_id(self) -> SpanId | None:
        """None at a root."""
        ...

    @property
    def start_time_ns(self) -> int:
        """Since 1970."""
        ...


SpanT = TypeVar("SpanT", bound=Placed)


@dataclass(slots=True, eq=False)
class TreeNode(Generic[SpanT]):
    """A span and what stands below it, ordered by (start, span id).

    relation: `root` has no parent; `child` stands below its parent; the parent of an `orphan` is
    not stored; at a `cycle` a ring of parents was cut open; a `deep` span stands below its ancestor
    at the depth limit.
    """

    span: SpanT
    relation: Relation
    children: list[TreeNode[SpanT]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Place(Generic[SpanT]):
    """Where a span stands. `parent` is whom it names, `host` whom it ends up below.

    Both are None at the top of a tree.
    """

    index: int
    node: TreeNode[SpanT]
    parent: _Place[SpanT] | None = None
    host: _Place[SpanT] | None = None
    level: int = 1
    is_visited: bool = False
    named_by: list[_Place[SpanT]] = field(default_factory=list)


def build_forest(spans: Iterable[SpanT], max_depth: int = MAX_DEPTH) -> list[TreeNode[SpanT]]:
    """The trees of one trace, ordered by (start, span id) like all siblings.

    max_depth: 1 or more. All descendants of a span at level `max_depth` (a root is at level 1)
    become its children. Of several spans with one span id, the earliest gets the children. A ring
    of parents is cut open at its earliest span; a span that names itself is a ring of one.
    O(n log n) time.
    """
    ordered = sorted(spans, key=lambda span: (span.start_time_ns, span.span_id))
    places = [_Place(index, TreeNode(span, "child")) for index, span in enumerate(ordered)]
    _link(places)
    _cut_rings(places)
    _settle(places, max_depth)
    return _join(places)


def walk(roots: Sequence[TreeNode[SpanT]]) -> Iterator[tuple[int, TreeNode[SpanT]]]:
    """Every node with its depth (a root's is 0), a parent before its children."""
    waiting = [(0, node) for node in reversed(roots)]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        waiting.extend((depth + 1, child) for child in reversed(node.children))


def _link(places: list[_Place[SpanT]]) -> None:
    """Find every span's parent; spans without one are roots, orphans, or rings of one."""
    earliest: dict[SpanId, _Place[SpanT]] = {}
    for place in places:
        earliest.setdefault(place.node.span.span_id, place)
    for place in places:
        span = place.node.span
        if span.parent_span_id is None:
            place.node.relation = "root"
        elif span.parent_span_id == span.span_id:
            place.node.relation = "cycle"
        else:
            place.parent = earliest.get(span.parent_span_id)
            place.node.relation = "child" if place.parent else "orphan"


def _cut_rings(places: list[_Place[SpanT]]) -> None:
    """Take the parent from the earliest span of every ring, so that each way up ends."""
    for start in places:
        way_up = _unvisited_way_up(start)
        ring = _ring_of(way_up)
        if ring:
            first = min(ring, key=lambda place: place.index)
            first.parent = None
            first.node.relation = "cycle"


def _unvisited_way_up(place: _Place[SpanT] | None) -> list[_Place[SpanT]]:
    way_up: list[_Place[SpanT]] = []
    while place is not None and not place.is_visited:
        place.is_visited = True
        way_up.append(place)
        place = place.parent
    return way_up


def _ring_of(way_up: list[_Place[SpanT]]) -> list[_Place[SpanT]]:
    """The end of the way, from the span on that its last span names as parent.

    Empty if that one is not on the way.
    """
    parent = way_up[-1].parent if way_up else None
    at = next((at for at, place in enumerate(way_up) if place is parent), len(way_up))
    return way_up[at:]


def _settle(places: list[_Place[SpanT]], max_depth: int) -> None:
    """Give every span its host, parents before those who name them."""
    for place in places:
        if place.parent is not None:
            place.parent.named_by.append(place)
    settled = [place for place in places if place.parent is None]
    for place in settled:  # grows meanwhile: level by level down the trees
        for child in place.named_by:
            _put_below(place, child, max_depth)
        settled.extend(place.named_by)


def _put_below(parent: _Place[SpanT], child: _Place[SpanT], max_depth: int) -> None:
    child.level = min(parent.level, max_depth) + 1
    child.host = parent.host if parent.level > max_depth else parent
    child.node.relation = "deep" if parent.level >= max_depth else "child"


def _join(places: list[_Place[SpanT]]) -> list[TreeNode[SpanT]]:
    """Hang every node below its host; `places` is in the order of siblings."""
    forest: list[TreeNode[SpanT]] = []
    for place in places:
        siblings = forest if place.host is None else place.host.node.children
        siblings.append(place.node)
    return forest
