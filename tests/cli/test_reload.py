"""`start --reload` for real: a supervisor, a child and a source file that changes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("watchfiles")

REPOSITORY = Path(__file__).parents[2]

SUPERVISOR = """
import subprocess, sys
from pathlib import Path
from msgtrace.cli import reload

folder = Path(sys.argv[1])
reload.source_folders = lambda: [folder]
reload.command = lambda arguments: [sys.executable, str(folder / "child.py"), *arguments]
reload.supervise(["start", "--port", "0"])
"""

CHILD = """
import signal, sys, time
from pathlib import Path

log = Path(__file__).with_name("log.txt")
def note(text):
    with log.open("a") as file:
        file.write(text + chr(10))
def stop(*_):
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("started " + " ".join(sys.argv[1:]))
time.sleep(60)
"""


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_changed_source_restarts_the_service_and_a_stop_signal_reaches_it(
    tmp_path: Path,
) -> None:
    child, log = tmp_path / "child.py", tmp_path / "log.txt"
    child.write_text(CHILD)
    log.touch()

    def said(line: str) -> int:
        return log.read_text().splitlines().count(line)

    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: said("started start --port 0") == 1, "the first start")
        time.sleep(1)  # the watcher says nothing when it is ready
        child.write_text(CHILD + "# changed\n")
        wait_until(lambda: said("started start --port 0") == 2, "the restart")
        assert said("stopped") == 1

        supervisor.send_signal(signal.SIGTERM)
        _, stderr = supervisor.communicate(timeout=10)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert supervisor.returncode == 0
    assert said("stopped") == 2
    assert b"child.py changed; restarting" in stderr


def test_only_sources_of_the_program_are_watched() -> None:
    from msgtrace.cli import reload  # noqa: PLC0415 - after importorskip

    folders = reload.source_folders()

    assert REPOSITORY / "msgtrace" in folders
    assert reload.is_source("/x/msgtrace/api/app.py")
    assert reload.is_source("/x/migrations/sqlite/0001_first.sql")
    assert not reload.is_source("/x/msgtrace/__pycache__/app.cpython-311.pyc")
