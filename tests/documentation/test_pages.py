"""What a page tells a reader to do works, and the pages make a site without a broken link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documentation.blocks import Reader, read_blocks
from tests.end_to_end.processes import ROOT, running

FOLLOWED = ["README.md", "docs/quick-start.md"]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    database = tmp_path / "msgtrace.db"
    with running("start", f"sqlite:///{database}") as service:
        yield Reader(service, database, tmp_path)


@pytest.mark.end_to_end
@pytest.mark.parametrize("page", FOLLOWED)
def test_a_reader_who_does_what_the_page_says_comes_to_its_end(reader: Reader, page: str) -> None:
    blocks = read_blocks(ROOT / page)

    assert {block.language for block in blocks} >= {"", "python"}
    for block in blocks:
        reader.follow(block)


def test_an_unknown_command_on_a_page_is_noticed(reader: Reader) -> None:
    with pytest.raises(AssertionError, match="nothing here tries"):
        reader.type("frobnicate --all")


def test_a_command_that_fails_on_a_page_is_noticed(reader: Reader) -> None:
    with pytest.raises(AssertionError, match="no-such-option"):
        reader.type("msgtrace list --no-such-option")


def pages_of(navigation: Any) -> Iterator[str]:
    if isinstance(navigation, str):
        yield navigation
    for each in navigation if isinstance(navigation, list) else ():
        yield from (page for entry in each.values() for page in pages_of(entry))


def test_every_page_is_in_the_navigation() -> None:
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}

    assert sorted(pages_of(navigation)) == sorted(pages)


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "docs", copy / "docs")
    shutil.copy(ROOT / "zensical.toml", copy)
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--strict"],
        cwd=copy,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "No issues found" in ended.stdout + ended.stderr
    site = list((copy / "build" / "site").rglob("*.html"))
    assert len(site) >= 20
    for page in site:
        text = page.read_text()
        assert 'src="http' not in text
        assert 'rel="stylesheet" href="http' not in text
