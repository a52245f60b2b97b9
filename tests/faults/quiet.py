"""A collector without its database neither spins nor floods the log."""

from __future__ import annotations

import time

from msgtrace.model.units import MIB
from tests.faults.stage import Stage

WATCHED_S = 3.0

MOST_CPU_SHARE = 0.25
"""Of one core, of each collector that nobody sends to."""

MOST_LOG_LINES = 250
"""Of one test, tracebacks included: an event is logged ten times in ten seconds at most."""


MOST_MEMORY_BYTES = 300 * MIB
"""Of one collector, whatever happens: its queue alone may hold 64 MiB of requests."""


def require_quiet(stage: Stage) -> None:
    """Call it while the database is away."""
    with stage.load.paused():
        time.sleep(0.5)
        cpu_s, lines = stage.cpu_s(), stage.log_lines()
        time.sleep(WATCHED_S)
        cpu_s, lines = stage.cpu_s() - cpu_s, stage.log_lines() - lines
    assert cpu_s < MOST_CPU_SHARE * WATCHED_S * len(stage.collectors), f"{cpu_s:.2f} s of CPU"
    assert lines < MOST_LOG_LINES / 2, f"{lines} lines of log"
