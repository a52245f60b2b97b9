"""Random faults one after the other: python -m tests.faults.torture --minutes 30 --seed N.

Two collectors on one database, first SQLite, then PostgreSQL, each half of the time, unless
--database names one. Prints a line now and then, audits the whole database each time, and ends
with a verdict: 0 if nothing was lost, nothing duplicated, no total wrong, no sender told to give
up, and every sender was served again after each fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgtrace.model.units import MIB
from tests.faults.audit import Audit, audit, check_integrity
from tests.faults.faults import (
    LONG,
    POSTGRES,
    SQLITE,
    Fault,
    clock_stepped_back,
    disk_full,
)
from tests.faults.private_postgres import private_postgres
from tests.faults.quiet import MOST_MEMORY_BYTES
from tests.faults.stage import Stage, large_disk, movable_clock, postgres_stage, sqlite_stage

DATABASES = ("sqlite", "postgres")

DISK_GIB = 12
REPORT_EVERY_S = 150.0

SENDERS = 8
PACE_S = 0.03
"""Between two requests of one sender: some of the time the collectors are busy, never always."""

MOST_SPANS = 160
"""In one request. With these, half an hour acknowledges several millions on two cores."""

SHARE_OF_LONG_FAULTS = 0.02


@dataclass
class Run:
    """What one database went through."""

    database: str
    faults: Counter[str] = field(default_factory=Counter)
    slowest_recovery_s: float = 0.0
    slowest_after: str = ""
    most_memory_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def inject(self, stage: Stage, fault: Fault) -> None:
        """One fault, and the proof that every sender is served again."""
        lines, cpu_s, since = stage.log_lines(), stage.cpu_s(), time.monotonic()
        fault(stage)
        stage.require_all_running()
        took_s = stage.load.wait_until_all_succeed()
        self.faults[fault.__name__] += 1
        if took_s > self.slowest_recovery_s:
            self.slowest_recovery_s, self.slowest_after = took_s, fault.__name__
        took_s, lines = time.monotonic() - since, stage.log_lines() - lines
        if lines > 100 + 30 * took_s * len(stage.collectors):
            self.problems.append(f"{fault.__name__}: {lines} lines of log in {took_s:.1f} s")
        self.most_memory_bytes = max(self.most_memory_bytes, stage.memory_bytes())
        if stage.memory_bytes() > MOST_MEMORY_BYTES:
            self.problems.append(
                f"{fault.__name__}: a collector takes {stage.memory_bytes()} bytes"
            )
        if stage.cpu_s() - cpu_s > 1.5 * took_s:
            self.problems.append(f"{fault.__name__}: the collectors spin")

    def report(self, stage: Stage) -> None:
        """Audit what was sent since the last report, and say how it goes."""
        with stage.load.paused():
            spilled, since = stage.spilled_requests(), time.monotonic()
            stage.wait_until_drained()
            if spilled:
                took_s = time.monotonic() - since
                say(f"{self.database}: {spilled} spilled requests drained in {took_s:.1f} s")
            self.say(audit(stage.database_url, stage.load, stage.load.begin_epoch()), stage)

    def conclude(self, stage: Stage) -> None:
        """Audit all that was ever sent."""
        if stage.postgres is not None:
            stage.postgres.ensure_running()
        stage.wait_until_drained()
        self.say(audit(stage.database_url, stage.load), stage)
        if stage.path is not None:
            check_integrity(str(stage.path))

    def say(self, found: Audit, stage: Stage) -> None:
        """Print it, and keep what is wrong for the verdict."""
        minutes = (time.monotonic() - self.started) / 60
        say(
            f"{self.database} {minutes:5.1f} min, {sum(self.faults.values())} faults: {found};"
            f" {stage.load.summary()};"
            f" slowest recovery {self.slowest_recovery_s:.1f} s after {self.slowest_after};"
            f" a collector took {self.most_memory_bytes / MIB:.0f} MiB at most"
        )
        self.problems += found.problems
        self.problems += [f"wrong answer: {each}" for each in stage.load.wrong_answers]
        stage.load.wrong_answers.clear()


def torture(database: str, minutes: float, seed: int) -> Run:
    """Faults for so long, then the verdict on this database."""
    run = Run(database)
    chance = random.Random(f"{seed} {database}")
    deadline = time.monotonic() + minutes * 60
    with _stage(database, chance.randrange(2**32)) as stage:
        try:
            with stage.under_load():
                _cycle(run, stage, chance, deadline)
        except Exception as error:  # noqa: BLE001 - every one of them is a fault, and the audit follows
            run.problems.append("".join(traceback.format_exception(error, limit=-4)))
            if stage.postgres is not None:
                run.problems.append(stage.postgres.log_tail())
        run.conclude(stage)
    say(f"{database}: {dict(sorted(run.faults.items()))}")
    return run


def _cycle(run: Run, stage: Stage, chance: random.Random, deadline: float) -> None:
    faults = _faults(stage)
    report_at = time.monotonic() + REPORT_EVERY_S
    queue: list[Fault] = []
    while time.monotonic() < deadline:
        if not queue:  # each once before any comes again
            queue = chance.sample(faults, len(faults))
        is_long = stage.postgres is not None and chance.random() < SHARE_OF_LONG_FAULTS
        run.inject(stage, chance.choice(LONG) if is_long else queue.pop())
        if time.monotonic() >= report_at:
            run.report(stage)
            report_at = time.monotonic() + REPORT_EVERY_S
        stage.sleep(0.0, 2.0)


def _faults(stage: Stage) -> list[Fault]:
    faults = POSTGRES if stage.postgres is not None else SQLITE
    where_mounted = [] if stage.disk is None else [disk_full]
    return [*faults, clock_stepped_back, *where_mounted]


@contextlib.contextmanager
def _stage(database: str, seed: int) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(large_disk(DISK_GIB))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clock, program = movable_clock(scratch)
        options: dict[str, Any] = {"senders": SENDERS, "pace_s": PACE_S, "most_spans": MOST_SPANS}
        if database == "sqlite":
            path = (disk or scratch) / "msgtrace.db"
            stage = stack.enter_context(
                sqlite_stage(path, seed, collectors=2, program=program, **options)
            )
            stage.disk = disk
        else:
            server = stack.enter_context(private_postgres())
            stage = stack.enter_context(
                postgres_stage(server, seed, collectors=2, program=program, disk=disk, **options)
            )
        stage.clock = clock
        yield stage


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--database", choices=DATABASES)
    arguments = parser.parse_args()
    chosen = DATABASES if arguments.database is None else (arguments.database,)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else a line for each program started
    say(f"seed {arguments.seed}")
    runs = [torture(each, arguments.minutes / len(chosen), arguments.seed) for each in chosen]
    for run in runs:
        for problem in run.problems:
            say(f"{run.database}: {problem}")
    is_clean = not any(run.problems for run in runs)
    say("verdict: zero lost, zero duplicated, zero wrong totals" if is_clean else "verdict: FAILED")
    return int(not is_clean)


if __name__ == "__main__":
    sys.exit(main())
