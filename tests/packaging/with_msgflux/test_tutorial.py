"""docs/tutorial.md shows what a reader gets. MSGTRACE_TEST_RENDER_TUTORIAL=1 renders it anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.end_to_end.processes import free_ports
from tests.packaging.with_msgflux import tutorial
from tests.packaging.with_msgflux.conftest import User

RENDERS = bool(os.environ.get("MSGTRACE_TEST_RENDER_TUTORIAL"))
"""Read here: no variable of this kind reaches a test."""

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("msgflux"),
]


def test_the_tutorial_shows_what_its_commands_print(user: User, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    home = {"XDG_DATA_HOME": str(tmp_path), "MSGTRACE_PORT": str(port), "COLUMNS": "110"}

    def run(command: list[str]) -> str:
        program, *arguments = command
        if program == "python":
            arguments = [str(tutorial.script(arguments[0]))]
        done = user.environment.run(program, *arguments, variables=user.model | home)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    page = tutorial.read()
    rendered = tutorial.render(page, run)
    if RENDERS:
        tutorial.write(rendered)
        return

    assert tutorial.without_what_varies(page) == tutorial.without_what_varies(rendered)
