"""PostgreSQL under every fault: nothing acknowledged is lost, nothing counted twice."""

from __future__ import annotations

import pytest

from tests.faults.audit import audit
from tests.faults.faults import POSTGRES, Fault, disk_full, files_exhausted
from tests.faults.private_postgres import PrivatePostgres
from tests.faults.quiet import MOST_LOG_LINES, require_quiet
from tests.faults.stage import Stage, limited_files, postgres_stage, small_disk

pytestmark = pytest.mark.postgres


def require_recovery(stage: Stage) -> None:
    """By itself, and with retryable answers all along."""
    stage.require_all_running()
    stage.load.wait_until_all_succeed()
    assert stage.load.wrong_answers == []
    assert stage.log_lines() < MOST_LOG_LINES


def require_truth(stage: Stage) -> None:
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


def test_a_full_disk_refuses_senders_until_there_is_room(
    server: PrivatePostgres, seed: int
) -> None:
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
            if away == "stopped":
                server.stop("immediate")
            else:
                stage.network.freeze()
            require_quiet(stage)
            if away == "stopped":
                server.start()
            else:
                stage.network.thaw()
            require_recovery(stage)
        require_truth(stage)
