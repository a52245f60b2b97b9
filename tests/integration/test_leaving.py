"""However a program ends, its spans arrive and the server that it started ends after it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.runs import Desk

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.free(tmp_path)


@pytest.mark.parametrize(
    ("program", "code"), [("ends_without_stop", 0), ("exits", 3), ("exits_at_once", 4)]
)
def test_the_last_span_arrives(desk: Desk, program: str, code: int) -> None:
    done = desk.run(program)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert desk.spans() == {"last": 1}


def test_the_last_span_before_an_exception_arrives(desk: Desk) -> None:
    done = desk.run("raises")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "RuntimeError: of the program"
    assert desk.spans() == {"last": 1}


def test_ctrl_c_stops_the_program_and_then_the_server(desk: Desk) -> None:
    with desk.running("is_interrupted") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        # As a terminal does: to all of the program's group.
        os.killpg(program.pid, signal.SIGINT)
        said = program.communicate(timeout=20)[1]

    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert program.returncode == -signal.SIGINT
    assert desk.spans() == {"last": 1}


def test_a_killed_program_leaves_what_it_had_sent_and_no_server(desk: Desk) -> None:
    assert desk.run("is_killed").returncode == -signal.SIGKILL

    assert desk.spans() == {"long ago": 1}


def test_stop_undoes_everything_and_recording_may_begin_again(desk: Desk) -> None:
    done = desk.run("stops")

    assert (done.returncode, done.stderr) == (0, "")
    assert desk.spans() == {"inside": 1, "again": 1}


def test_forked_children_record_and_do_not_end_the_parents_server(desk: Desk) -> None:
    done = desk.run("forks")

    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert desk.spans() == dict.fromkeys(
        ("parent before", "child", "child that stops", "worker", "parent after"), 1
    )


def test_a_child_that_outlives_its_parent_keeps_the_server(desk: Desk) -> None:
    assert desk.run("leaves_a_child").returncode == 0

    assert desk.spans() == {"parent": 1, "survivor": 1}
