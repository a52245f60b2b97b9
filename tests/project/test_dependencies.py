"""What the package imports is what pyproject.toml declares: a bare install runs."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

EXCUSED = {
    "msgtrace/cli/reload.py": "watchfiles",
    "msgtrace/otlp/native.py": "msgtrace-native",
}
"""Modules that a bare install does without, and what an extra brings for them."""


EXTRAS = {"integration": "integration"}
"""Folders of the package with dependencies of their own, in an extra, and with no others."""


def declared(extra: str | None = None) -> set[str]:
    """The distributions that an install without extras brings on purpose, or an extra alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = project["optional-dependencies"][extra] if extra else project["dependencies"]
    names = (re.match(r"[\w.-]+", requirement) for requirement in brought)
    return {normalized(name[0]) for name in names if name}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules() -> Iterator[tuple[Path, str]]:
    """Every module outside msgtrace and the standard library that the package imports."""
    for path in sorted((ROOT / "msgtrace").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                if name.partition(".")[0] not in {"msgtrace", *sys.stdlib_module_names}:
                    yield path, name


def owners() -> dict[Path, str]:
    """Each installed file and its distribution."""
    return {
        Path(str(file.locate())).resolve(): normalized(distribution.name)
        for distribution in importlib.metadata.distributions()
        for file in distribution.files or []
        if file.suffix in {".py", ".so"}
    }


def test_every_import_comes_from_a_declared_dependency() -> None:
    known = owners()
    strangers = []
    for path, name in imported_modules():
        allowed = declared(EXTRAS.get(path.parent.name))
        spec = importlib.util.find_spec(name)
        owner = known.get(Path(spec.origin).resolve()) if spec and spec.origin else None
        source = path.relative_to(ROOT).as_posix()
        if owner is None and source in EXCUSED:
            continue  # not installed, which is what the excuse is for
        if owner not in allowed and owner != EXCUSED.get(source):
            strangers.append(f"{source} imports {name} of {owner}")

    assert strangers == []
