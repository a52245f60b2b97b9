"""kill -9 at one moment after the other: after each the files are sound and hold all that was said.

What a power cut would leave besides is in `tests/crashes`. FAULTS_KILLS says how many.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from msgtrace.otlp.encodings import decode_as
from msgtrace.storage.spill_files import spill_files, spill_folders
from tests.faults.audit import audit, check_integrity
from tests.faults.private_postgres import PrivatePostgres
from tests.faults.stage import Stage, postgres_stage, sqlite_stage
from tests.faults.supply import Origin
from tests.spilled import in_file

KILLS = int(os.environ.get("FAULTS_KILLS", "4"))

pytestmark = pytest.mark.timeout(60 + 20 * KILLS)


def kill(stage: Stage) -> None:
    [collector] = stage.collectors
    stage.sleep(0.0, 0.4)
    stage.collectors.remove(collector)
    collector.kill()
    collector.close()


def start_again(stage: Stage) -> None:
    stage.start_collector(stage.load.targets[0])
    stage.load.wait_for_requests(5)


def copied(files: Path, pattern: str, to: Path) -> Path:
    """As the kill left them; whoever looks at the originals would mend them first."""
    to.mkdir()
    for path in files.glob(pattern):
        shutil.copy(path, to)
    return to


def test_the_database_file_is_sound_and_complete_after_each_kill(tmp_path: Path, seed: int) -> None:
    with sqlite_stage(tmp_path / "msgtrace.db", seed) as stage, stage.under_load():
        for number in range(KILLS):
            kill(stage)
            path = copied(tmp_path, "msgtrace.db*", tmp_path / f"{number}") / "msgtrace.db"
            audit(f"sqlite:///{path}", stage.load).require_clean()
            check_integrity(str(path))
            start_again(stage)


@pytest.mark.postgres
def test_the_spill_file_is_sound_and_complete_after_each_kill(
    server: PrivatePostgres, seed: int, tmp_path: Path
) -> None:
    settings = {"MSGTRACE_SPILL_DIR": str(tmp_path / "spill")}
    with postgres_stage(server, seed, settings=settings) as stage:
        server.stop("immediate")
        with stage.under_load():
            for number in range(KILLS):
                kill(stage)
                [folder] = spill_folders(settings["MSGTRACE_SPILL_DIR"])
                require_all_spilled(stage, copied(folder, "spill-*", tmp_path / f"{number}"))
                start_again(stage)
            server.start()
            stage.load.wait_until_all_succeed()
        stage.wait_until_drained()
        audit(stage.database_url, stage.load).require_clean()


def require_all_spilled(stage: Stage, folder: Path) -> None:
    acknowledged = stage.load.snapshot()
    spilled: set[bytes] = set()
    for path in spill_files(folder):
        check_integrity(str(path))
        for request in in_file(path):
            spilled |= {row[2] for row in decode_as(request.encoding, request.payload).spans}
    for sender, sent in enumerate(acknowledged):
        for serial in range(sent.acknowledged):
            count = stage.load.supply.span_count(sender, serial, is_padded=False)
            ids = {Origin(sender, 0, serial, False, place).span_id for place in range(count)}
            assert ids <= spilled, f"request {sender}/{serial} was acknowledged and is gone"
