"""A collector that is really overloaded, for as long as a test wants.

Its budget for requests under way is tiny, and one upload that stalls holds nearly all of it: every
other export is told to come back in a second, on both wires.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, wait_until
from tests.end_to_end.senders import post

BUDGET_BYTES = 16 * 1024
FREE_BYTES = 16
"""Less than any export needs."""

SETTINGS = {"MSGTRACE_MAX_INFLIGHT_BYTES": str(BUDGET_BYTES)}


class Overload:
    """One stalled upload."""

    def __init__(self, service: RunningProcess) -> None:
        self._connection = socket.create_connection(("127.0.0.1", service.ports.http), timeout=10)

    def begin(self) -> None:
        """Announce a body as large as the budget and send all but its end."""
        head = (
            "POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/x-protobuf\r\nContent-Length: {BUDGET_BYTES}\r\n\r\n"
        )
        self._connection.sendall(head.encode() + bytes(BUDGET_BYTES - FREE_BYTES))

    def end(self) -> None:
        """Hang up: the budget is free again. Calling it twice changes nothing."""
        self._connection.close()


@contextlib.contextmanager
def overloaded(service: RunningProcess) -> Iterator[Overload]:
    """From when every export is refused; until the block or the test ends it."""
    overload = Overload(service)
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
