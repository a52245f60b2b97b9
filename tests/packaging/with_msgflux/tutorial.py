"""docs/tutorial.md as a program: examples are files, commands are run, outputs are real."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.packaging.conftest import ROOT

PAGE = ROOT / "docs" / "tutorial.md"

Run = Callable[[list[str]], str]
"""Runs a command and returns what it printed."""

_EXAMPLE = re.compile(r"(\]\((examples/\w+\.py)\):\n\n```python\n)(.*?)(```)", re.DOTALL)
_CONSOLE = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)
_ID = re.compile(r"\b[0-9a-f]{32}\b")
_VARYING = (
    (_ID, "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"[\d.,]+ (µs|ms|s)\b"), "DURATION"),
    (re.compile(r"[█ ]+"), " "),
)


def render(page: str, run: Run) -> str:
    """The page with its examples and with the outputs of this run."""

    def example(match: re.Match[str]) -> str:
        return match[1] + (PAGE.parent / match[2]).read_text() + match[4]

    def console(match: re.Match[str]) -> str:
        commands = [line[2:] for line in match[2].splitlines() if line.startswith("$ ")]
        return match[1] + _transcript(commands, run) + match[3]

    return _CONSOLE.sub(console, _EXAMPLE.sub(example, page))


def without_what_varies(page: str) -> str:
    """The page with a word for each id, time and duration, and without bars and alignment."""
    for pattern, word in _VARYING:
        page = pattern.sub(word, page)
    return "\n".join(line.rstrip() for line in page.splitlines())


def write(page: str) -> None:
    """Keep the outputs of this run."""
    PAGE.write_text(page)


def read() -> str:
    """The page as it is."""
    return PAGE.read_text()


def _transcript(commands: list[str], run: Run) -> str:
    """Each command with its output. An id in a command is one that was printed before."""
    transcript, printed = "", ""
    for command in commands:
        if _ID.search(command):
            found = _ID.search(printed)
            assert found, f"no trace was listed before `{command}`"
            command = _ID.sub(found[0], command)
        printed = run(shlex.split(command))
        transcript += f"$ {command}\n{printed}"
    return transcript


def script(name: str) -> Path:
    """The file of an example."""
    return PAGE.parent / "examples" / name
