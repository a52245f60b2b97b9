"""PostgreSQL under every fault: nothing acknowledged is lost, nothing counted twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.processes import wait_until
from tests.faults.audit import audit
from tests.faults.faults import (
    POSTGRES,
    Fault,
    clock_stepped_back,
    disk_full,
    files_exhausted,
)
from tests.faults.private_postgres import PrivatePostgres, private_postgres
from tests.faults.quiet import MOST_LOG_LINES, MOST_MEMORY_BYTES, require_quiet
from tests.faults.stage import (
    Stage,
    full,
    limited_files,
    movable_clock,
    postgres_stage,
    small_disk,
)

pytestmark = pytest.mark.postgres


def require_recovery(stage: Stage) -> None:
    """By itself, and with retryable answers all along."""
    stage.require_all_running()
    stage.load.wait_until_all_succeed()
    assert stage.load.wrong_answers == []
    assert stage.log_lines() < MOST_LOG_LINES
    assert stage.memory_bytes() < MOST_MEMORY_BYTES


def require_truth(stage: Stage) -> None:
    stage.wait_until_drained()
    stage.close()
    audit(stage.database_url, stage.load).require_clean()


@pytest.mark.parametrize("fault", POSTGRES, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_and_totals_stay_right(
    fault: Fault, server: PrivatePostgres, seed: int
) -> None:
    with postgres_stage(server, seed) as stage:
        with stage.under_load():
            fault(stage)
            require_recovery(stage)
        require_truth(stage)


def test_two_collectors_race_with_the_same_requests(server: PrivatePostgres, seed: int) -> None:
    with postgres_stage(server, seed, collectors=2, is_race=True) as stage:
        with stage.under_load():
            stage.load.wait_for_requests(150)
            stage.kill_and_restart(stage.collectors[0])
            require_recovery(stage)
            stage.server.stop("immediate")
            stage.server.start()
            require_recovery(stage)
        require_truth(stage)


def test_a_full_disk_is_bridged_until_there_is_room(server: PrivatePostgres, seed: int) -> None:
    with small_disk(128) as disk:
        if disk is None:
            pytest.skip("no file system may be mounted here")
        with postgres_stage(server, seed, disk=disk) as stage:
            with stage.under_load():
                disk_full(stage)
                require_recovery(stage)
            require_truth(stage)


def test_exhausted_file_descriptors_pass(server: PrivatePostgres, seed: int) -> None:
    with postgres_stage(server, seed, program=limited_files(64)) as stage:
        with stage.under_load():
            files_exhausted(stage)
            require_recovery(stage)
        require_truth(stage)


@pytest.mark.parametrize("away", ["stopped", "frozen"])
def test_a_collector_waits_quietly_for_its_database(
    server: PrivatePostgres, seed: int, away: str
) -> None:
    with postgres_stage(server, seed) as stage:
        with stage.under_load():
            with _without_database(stage, away):
                require_quiet(stage)
            require_recovery(stage)
        require_truth(stage)


@pytest.mark.parametrize("away", ["stopped", "frozen"])
def test_no_sender_is_refused_while_the_database_is_away(
    server: PrivatePostgres, seed: int, away: str
) -> None:
    with postgres_stage(server, seed) as stage:
        with stage.under_load():
            with _without_database(stage, away):
                stage.load.wait_until_all_succeed()
                stage.load.wait_for_requests(100)
                assert stage.spilled_requests() > 0
            require_recovery(stage)
        assert stage.load.troubles["refused"] == 0
        require_truth(stage)


def test_without_a_spill_senders_are_told_to_retry(server: PrivatePostgres, seed: int) -> None:
    with postgres_stage(server, seed, settings={"MSGTRACE_SPILL_DIR": "off"}) as stage:
        with stage.under_load():
            with _without_database(stage, "stopped"):
                wait_until(lambda: stage.load.troubles["refused"] > 0, "a refusal", 30)
            require_recovery(stage)
        require_truth(stage)


def test_a_collector_that_starts_before_its_database_acknowledges_from_the_spill(
    server: PrivatePostgres, seed: int
) -> None:
    with postgres_stage(server, seed) as stage:
        [collector] = stage.collectors
        server.stop("fast")
        collector.stop()
        stage.kill_and_restart(collector)
        with stage.under_load():
            stage.load.wait_for_requests(100)
            server.start()
            require_recovery(stage)
        require_truth(stage)


def test_a_full_spill_refuses_until_it_is_drained(server: PrivatePostgres, seed: int) -> None:
    settings = {"MSGTRACE_MAX_SPILL_BYTES": "100000"}
    with postgres_stage(server, seed, settings=settings) as stage:
        with stage.under_load():
            with _without_database(stage, "stopped"):
                wait_until(lambda: stage.load.troubles["refused"] > 0, "a refusal", 60)
                [collector] = stage.collectors
                answer = httpx.get(f"{collector.otlp_url}/ready", trust_env=False)
                assert answer.status_code == 503
                assert answer.json()["spill"]["bytes"] <= 100_000
            require_recovery(stage)
        require_truth(stage)


def test_a_full_disk_under_the_spill_refuses_until_there_is_room(
    server: PrivatePostgres, seed: int
) -> None:
    with small_disk(32) as disk:
        if disk is None:
            pytest.skip("no file system may be mounted here")
        settings = {"MSGTRACE_SPILL_DIR": str(disk)}
        with postgres_stage(server, seed, settings=settings) as stage:
            with stage.under_load():
                with _without_database(stage, "stopped"):
                    wait_until(lambda: stage.spilled_requests() > 0, "a spill", 30)
                    before = stage.load.troubles["refused"]
                    with full(disk):
                        wait_until(lambda: stage.load.troubles["refused"] > before, "a refusal", 30)
                    stage.load.wait_until_all_succeed()
                require_recovery(stage)
            require_truth(stage)


def test_a_clock_that_steps_back_costs_nothing(
    server: PrivatePostgres, seed: int, tmp_path: Path
) -> None:
    clock, program = movable_clock(tmp_path)
    with postgres_stage(server, seed, program=program) as stage:
        stage.clock = clock
        with stage.under_load():
            clock_stepped_back(stage)
            with _without_database(stage, "stopped"):
                wait_until(lambda: stage.spilled_requests() > 0, "a spill", 30)
                clock_stepped_back(stage)
            require_recovery(stage)
        require_truth(stage)


def test_a_failover_to_a_standby_loses_nothing(seed: int) -> None:
    """The primary is gone; its standby answers, at first read-only, and is promoted later."""
    with private_postgres() as primary, private_postgres(primary) as standby:
        primary.wait_for_standby(waits=True)
        with postgres_stage(primary, seed) as stage:
            with stage.under_load():
                primary.kill()
                stage.network.aim_at(standby.port)
                stage.network.reset()
                wait_until(lambda: stage.spilled_requests() > 0, "a spill", 30)
                stage.load.wait_until_all_succeed()
                standby.promote()
                require_recovery(stage)
            stage.database_url = standby.url(stage.database)
            require_truth(stage)
            primary.start()
            primary.wait_for_standby(waits=False)


@contextlib.contextmanager
def _without_database(stage: Stage, away: str) -> Iterator[None]:
    if away == "stopped":
        stage.server.stop("immediate")
    else:
        stage.network.freeze()
    try:
        yield
    finally:
        if away == "stopped":
            stage.server.start()
        else:
            stage.network.thaw()
