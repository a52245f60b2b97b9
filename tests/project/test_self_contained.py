"""The repository speaks of itself alone: nothing tracked points outside it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOREIGN_PATH = re.compile(
    r"""(?<![\w.:)*-])/(?:home|root|Users|work|workspace)/  # of one machine, not of a URL
      | (?<![\w/.-])(?:\.\./)*(?:shared)/  # a folder that the tree does not have
    """,
    re.VERBOSE,
)
MARKDOWN_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not describes_a_container(path)]


def describes_a_container(path: Path) -> bool:
    """Such a file may name folders of the image."""
    return path.name.startswith("Dockerfile") or ROOT / "deploy" in path.parents


def texts(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """The files with their text; other bytes are read as Latin-1, so that captures are searched."""
    for path in paths:
        content = path.read_bytes()
        try:
            yield path, content.decode()
        except UnicodeDecodeError:
            yield path, content.decode("latin-1")


def test_no_file_names_a_folder_outside_the_repository(tracked: list[Path]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0].strip()}"
        for path, text in texts(tracked)
        for match in FOREIGN_PATH.finditer(text)
    ]

    assert found == []


def test_every_link_between_pages_leads_somewhere(tracked: list[Path]) -> None:
    pages = [path for path in tracked if path.suffix == ".md"]
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path, text in texts(pages)
        for target in MARKDOWN_LINK.findall(text)
        if not (path.parent / target).exists()
    ]

    assert broken == []
