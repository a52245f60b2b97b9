"""SQLite under every fault: nothing acknowledged is lost, nothing counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.audit import audit, check_integrity
from tests.faults.faults import (
    SQLITE,
    Fault,
    clock_stepped_back,
    disk_full,
    files_exhausted,
    sqlite_lock,
)
from tests.faults.quiet import MOST_LOG_LINES, MOST_MEMORY_BYTES, require_quiet
from tests.faults.stage import (
    Stage,
    limited_files,
    movable_clock,
    small_disk,
    sqlite_stage,
)


def require_recovery(stage: Stage) -> None:
    """By itself, and with retryable answers all along."""
    stage.require_all_running()
    stage.load.wait_until_all_succeed()
    assert stage.load.wrong_answers == []
    assert stage.log_lines() < MOST_LOG_LINES
    assert stage.memory_bytes() < MOST_MEMORY_BYTES


def require_truth(stage: Stage) -> None:
    assert stage.path is not None
    stage.close()
    audit(stage.database_url, stage.load).require_clean()
    check_integrity(str(stage.path))


@pytest.mark.parametrize("fault", SQLITE, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_and_totals_stay_right(fault: Fault, tmp_path: Path, seed: int) -> None:
    with sqlite_stage(tmp_path / "msgtrace.db", seed) as stage:
        with stage.under_load():
            fault(stage)
            require_recovery(stage)
        require_truth(stage)


def test_two_collectors_race_with_the_same_requests(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "msgtrace.db"
    with sqlite_stage(path, seed, collectors=2, is_race=True) as stage:
        with stage.under_load():
            stage.load.wait_for_requests(150)
            stage.kill_and_restart(stage.collectors[0])
            require_recovery(stage)
        require_truth(stage)


def test_a_full_disk_refuses_senders_until_there_is_room(seed: int) -> None:
    with small_disk(64) as disk:
        if disk is None:
            pytest.skip("no file system may be mounted here")
        with sqlite_stage(disk / "msgtrace.db", seed) as stage:
            with stage.under_load():
                stage.disk = disk
                disk_full(stage)
                require_recovery(stage)
                disk_full(stage)
                require_recovery(stage)
            require_truth(stage)


def test_exhausted_file_descriptors_pass(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "msgtrace.db"
    with sqlite_stage(path, seed, program=limited_files(64)) as stage:
        with stage.under_load():
            files_exhausted(stage)
            require_recovery(stage)
        require_truth(stage)


def test_a_clock_that_steps_back_costs_nothing(tmp_path: Path, seed: int) -> None:
    clock, program = movable_clock(tmp_path)
    with sqlite_stage(tmp_path / "msgtrace.db", seed, program=program) as stage:
        stage.clock = clock
        with stage.under_load():
            clock_stepped_back(stage)
            require_recovery(stage)
        require_truth(stage)


def test_a_collector_waits_quietly_for_its_database(tmp_path: Path, seed: int) -> None:
    with sqlite_stage(tmp_path / "msgtrace.db", seed) as stage:
        with stage.under_load():
            with sqlite_lock(stage):
                require_quiet(stage)
            require_recovery(stage)
        require_truth(stage)
