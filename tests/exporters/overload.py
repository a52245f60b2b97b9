"""A collector that is really overloaded, for as long as a test wants.

Its queue is tiny, and one export that waits for the locked database fills it: every other export is
told to come back in a second, on both wires.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, wait_until
from tests.end_to_end.senders import post

SETTINGS = {"MSGTRACE_MAX_QUEUED_BYTES": "64", "MSGTRACE_MAX_BATCH_BYTES": "64"}
"""Less than any export takes; a single one is let in nevertheless."""

MAX_FILLERS = 10
"""Each waits for some seconds."""

FILL_S = 0.3


class Overload:
    """A lock on the database, and an export that waits for it."""

    def __init__(self, service: RunningProcess, database: Path) -> None:
        self._url = f"{service.otlp_url}/v1/traces"
        self._lock = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._has_ended = threading.Event()
        self._filler = threading.Thread(target=self._fill)

    def begin(self) -> None:
        """Lock the database and fill the queue."""
        self._lock.execute("BEGIN IMMEDIATE")
        self._filler.start()
        time.sleep(FILL_S)  # else the first probe would be what waits

    def end(self) -> None:
        """Let go of the database: what waits is stored. Calling it twice changes nothing."""
        if self._has_ended.is_set():
            return
        self._has_ended.set()
        self._lock.execute("ROLLBACK")
        self._filler.join()
        self._lock.close()

    def _fill(self) -> None:
        filler = request(span("filler"), service="filler").SerializeToString()
        for _ in range(MAX_FILLERS):
            post(self._url, filler)
            if self._has_ended.is_set():
                return


@contextlib.contextmanager
def overloaded(service: RunningProcess, database: Path) -> Iterator[Overload]:
    """From when every export is refused; until the block or the test ends it."""
    overload = Overload(service, database)
    try:
        overload.begin()
        wait_until(lambda: is_refused(service), "the collector to be overloaded")
        yield overload
    finally:
        overload.end()


def is_refused(service: RunningProcess) -> bool:
    """Whether an export is told to come back in a second."""
    probe = request(span("probe"), service="probe").SerializeToString()
    response = post(f"{service.otlp_url}/v1/traces", probe)
    assert response.status_code in (200, 503), response.content
    assert response.headers.get("retry-after") == ("1" if response.status_code == 503 else None)
    return response.status_code == 503


def refused_requests(service: RunningProcess) -> float:
    """How many exports the collector has refused since its start."""
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(_REFUSED))


_REFUSED = "msgtrace_requests_refused_total{"
