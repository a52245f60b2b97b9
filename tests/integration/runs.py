"""Runs one of programs.py as a user would run a script, and reads what the database then holds."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.processes import (
    ROOT,
    can_connect,
    child_environment,
    free_ports,
    wait_until,
)

END_TIMEOUT_S = 45.0

# Newer Pythons warn of every fork beside a thread, and a batch processor has one.
_INTERPRETER = [
    *(sys.executable, "-W", "ignore:This process:DeprecationWarning"),
    *("-m", "tests.integration.programs"),
]


@dataclass(frozen=True, slots=True)
class Desk:
    """A port that nothing listens on, and a database file that does not exist yet."""

    port: int
    database: Path

    @classmethod
    def free(cls, folder: Path) -> Desk:
        return cls(free_ports(1)[0], folder / "traces.db")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; its exit code is the caller's to judge."""
        return subprocess.run(
            self._command(program),
            cwd=ROOT,
            env=child_environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=END_TIMEOUT_S,
            check=False,
        )

    @contextmanager
    def running(self, program: str) -> Iterator[subprocess.Popen[str]]:
        """A program that is talked to; it leads a process group of its own, as in a terminal."""
        with subprocess.Popen(
            self._command(program),
            cwd=ROOT,
            env=child_environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
                process.wait(END_TIMEOUT_S)
            finally:
                process.kill()

    def spans(self) -> Counter[str]:
        """How often each name is stored, once the server has ended."""
        self.wait_until_free()
        with closing(sqlite3.connect(self.database)) as connection:
            return Counter(name for (name,) in connection.execute("SELECT name FROM spans"))

    def wait_until_free(self) -> None:
        """Until nobody listens: the server has ended with its programs."""
        wait_until(lambda: not can_connect(self.port), "the server to end")

    def _command(self, program: str) -> list[str]:
        return [*_INTERPRETER, program, str(self.port), str(self.database)]


def run_program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program that is given other arguments."""
    return subprocess.run(
        [*_INTERPRETER, *arguments],
        cwd=ROOT,
        env=child_environment(variables),
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT_S,
        check=False,
    )
