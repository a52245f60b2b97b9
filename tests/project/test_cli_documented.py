"""docs/cli.md says what the commands say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.render_cli import SHELLS, completion_variable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rendered() -> str:
    """By a process of its own: a command keeps the form of `--help` of its first call."""
    return subprocess.run(
        [sys.executable, "-m", "tests.project.render_cli"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_page_of_the_command_line_is_fresh(rendered: str) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()

    assert page == rendered, "docs/cli.md is stale: run `make docs`"


def test_the_page_names_no_folder_of_this_machine(rendered: str) -> None:
    assert str(Path.home()) not in rendered


@pytest.mark.parametrize("program", ["msgtrace", "msgtrace-admin"])
@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_the_documented_completion_works(
    shell: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(completion_variable(program), f"{shell}_source")

    done = subprocess.run(
        [Path(sys.executable).with_name(program)], capture_output=True, text=True, check=True
    )

    assert f"{shell}_complete" in done.stdout
