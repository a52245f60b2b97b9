"""The code blocks of a page, and what carries out each line of them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from msgtrace.cli.options import FIELDS
from msgtrace.settings.table import variable_name
from tests.end_to_end.processes import ROOT, RunningProcess, child_environment

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DEFAULT_PORTS = {"4317": "grpc", "4318": "http", "4321": "query"}
_SERVERS = ("start", "collector", "query")
_COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the line of the page on which it begins."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """What a reader types. Beside lines with a prompt, the others are what is printed."""
        lines = self.text.splitlines()
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return typed or [line for line in lines if line and not line.startswith("#")]


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in _FENCE.finditer(text)
    ]


class Reader:
    """Somebody who does what a page says, beside a service that listens on other ports."""

    def __init__(self, service: RunningProcess, database: Path, folder: Path) -> None:
        self._service = service
        self._database = database
        self._folder = folder
        self.environment: dict[str, str] = child_environment(
            {
                "MSGTRACE_PORT": str(service.ports.query),
                "OTEL_EXPORTER_OTLP_ENDPOINT": service.otlp_url,
                "NO_PROXY": "127.0.0.1",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
        )

    def follow(self, block: Block) -> None:
        """Carry the block out. Fails where something does not work, or is not known."""
        if block.language == "python":
            program = self._folder / f"block_{block.line}.py"
            program.write_text(block.text)
            self._run([sys.executable, str(program)])
            return
        for command in block.commands:
            self.type(command)

    def type(self, line: str) -> None:
        """One line of a shell."""
        for part in re.split(r" && |; ", line):
            words = shlex.split(self._adapted(part))
            action = _ACTIONS.get(Path(words[0]).name)
            assert action is not None, f"nothing here tries what a reader is told to type: {line}"
            action(self, words)

    def _adapted(self, text: str) -> str:
        for default, name in _DEFAULT_PORTS.items():
            text = text.replace(f":{default}", f":{getattr(self._service.ports, name)}")
        if "TRACE_ID" in text:
            newest = self._service.get("/api/v1/traces", limit=1)["traces"][0]
            text = text.replace("TRACE_ID", newest["trace_id"])
        return text

    def _run(self, words: list[str]) -> str:
        ended = subprocess.run(
            words,
            cwd=self._folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        assert ended.returncode == 0, f"{shlex.join(words)}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def make(self, words: list[str]) -> None:
        """The target is there; what it does is what runs these tests."""
        assert self._run(["make", "--dry-run", "--directory", str(ROOT), *words[1:]])

    def pip(self, words: list[str]) -> None:
        """What a reader installs is what the tests have installed."""
        assert words[1] == "install"
        for name in words[2:]:
            importlib.metadata.distribution(name)

    def python3(self, words: list[str]) -> None:
        """Only to make an environment."""
        assert words[1:3] == ["-m", "venv"]

    def export(self, words: list[str]) -> None:
        """The variable is one that something reads."""
        known = {variable_name(name) for name in FIELDS} | {
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        }
        assert {word.partition("=")[0] for word in words[1:]} <= known

    def msgtrace(self, words: list[str]) -> None:
        """Run it; a server runs already."""
        arguments = ["--help"] if words[1] in _SERVERS else []
        assert self._run([Path(words[0]).name, *words[1:], *arguments])

    def curl(self, words: list[str]) -> None:
        """Ask for the URL."""
        response = httpx.get(words[-1], trust_env=False)
        assert response.status_code == 200, response.text

    def sqlite3(self, words: list[str]) -> None:
        """Ask the service's own file."""
        with contextlib.closing(sqlite3.connect(self._database)) as connection:
            assert connection.execute(words[2]).fetchall()


_ACTIONS: Mapping[str, Callable[[Reader, list[str]], None]] = {
    "make": Reader.make,
    "pip": Reader.pip,
    "python3": Reader.python3,
    "export": Reader.export,
    "msgtrace": Reader.msgtrace,
    "curl": Reader.curl,
    "sqlite3": Reader.sqlite3,
}
