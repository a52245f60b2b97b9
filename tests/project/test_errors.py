"""The tree drawn in msgtrace.errors is the tree of its classes."""

from __future__ import annotations

import inspect
import re

from msgtrace import errors


def drawn_parents() -> dict[str, str]:
    """Each class in the drawing and the class that it hangs from."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)(?:\s|$)", line)
        if found is None or not (found[1] or line == "MsgtraceError"):
            continue
        indent, name = len(found[1]), found[2]
        while path and path[-1][0] >= indent:
            path.pop()
        parents[name] = path[-1][1] if path else "Exception"
        path.append((indent, name))
    return parents


def test_the_drawing_shows_every_error_under_its_parent() -> None:
    classes = inspect.getmembers(errors, inspect.isclass)
    actual = {
        name: each.__bases__[0].__name__
        for name, each in classes
        if each.__module__ == errors.__name__
    }

    assert drawn_parents() == actual


def test_every_error_has_a_docstring_of_its_own() -> None:
    classes = inspect.getmembers(errors, inspect.isclass)

    assert [name for name, each in classes if not each.__dict__.get("__doc__")] == []
