"""`msgtrace start --reload` runs the newest sources; tried on a copy of them."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.processes import (
    ROOT,
    STOP_TIMEOUT_S,
    Program,
    can_connect,
    running,
    wait_until,
)

pytest.importorskip("watchfiles")

IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def copied_program(tmp_path: Path) -> Program:
    """The program as `python -m msgtrace` from a folder with copies of its sources."""
    for name in ("msgtrace", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=IGNORED)
    return Program(
        arguments=(sys.executable, "-m", "msgtrace"),
        folder=tmp_path / "copy",
        environment={"PYTHONPATH": str(tmp_path / "copy")},
    )


@pytest.fixture
def source(copied_program: Program) -> Path:
    """A module that every part of the program loads."""
    return copied_program.folder / "msgtrace" / "errors.py"


def test_a_changed_source_restarts_the_service_and_a_stop_ends_it(
    copied_program: Program, source: Path, sqlite_url: str
) -> None:
    with running("start", sqlite_url, "--reload", program=copied_program) as service:
        time.sleep(1)  # the watcher says nothing when it is ready

        source.write_text(source.read_text() + 'import sys\nsys.stderr.write("newest source\\n")\n')

        wait_until(lambda: "newest source" in service.stderr, "the restart")
        assert "errors.py changed; restarting" in service.stderr
        service.wait_until_ready()

        service.stop()
        assert not can_connect(service.ports.query)
        assert not can_connect(service.ports.grpc)


def test_a_broken_source_is_reported_and_its_repair_starts_the_service_again(
    copied_program: Program, source: Path, sqlite_url: str
) -> None:
    whole = source.read_text()
    with running("start", sqlite_url, "--reload", program=copied_program) as service:
        time.sleep(1)  # the watcher says nothing when it is ready
        source.write_text("def broken(:\n")
        wait_until(lambda: "waiting for a change" in service.stderr, "the report")
        assert "SyntaxError" in service.stderr
        assert not can_connect(service.ports.query)

        source.write_text(whole)

        service.wait_until_ready()
        service.send_signal(signal.SIGINT)
        assert service.popen.wait(STOP_TIMEOUT_S) == 0
