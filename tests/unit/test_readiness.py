"""Readiness: the database is asked seldom and never waited for long; the reasons are said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from msgtrace.errors import StorageUnavailable
from msgtrace.telemetry.endpoints import OperatorView, operator_routes
from msgtrace.telemetry.health import STOPPING, DatabaseProbe, Readiness, queue_problem
from msgtrace.telemetry.metrics import DatabaseMetrics

SHORT_S = 0.05


class Database:
    """Answers, fails or hangs as it is told."""

    def __init__(self) -> None:
        self.checks = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def check(self) -> None:
        self.checks += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def database() -> Database:
    return Database()


def probe_of(database: Database, interval_s: float = 60.0) -> DatabaseProbe:
    return DatabaseProbe(database.check, timeout_s=SHORT_S, interval_s=interval_s)


async def test_many_probes_ask_the_database_once(database: Database) -> None:
    probe = probe_of(database)

    assert await asyncio.gather(*(probe.problem() for _ in range(50))) == [None] * 50
    assert await probe.problem() is None

    assert database.checks == 1


async def test_an_answer_counts_for_a_while_only(database: Database) -> None:
    probe = probe_of(database, interval_s=SHORT_S)
    assert await probe.problem() is None
    database.error = StorageUnavailable("gone")

    assert await probe.problem() is None
    await asyncio.sleep(SHORT_S)

    assert await probe.problem() == "the database does not answer: gone"


async def test_a_database_that_hangs_is_waited_for_briefly_and_asked_once(
    database: Database,
) -> None:
    probe = probe_of(database, interval_s=0)
    database.answers.clear()

    for _ in range(3):
        started_s = time.monotonic()
        problems = await asyncio.gather(*(probe.problem() for _ in range(5)))
        assert time.monotonic() - started_s < 5
        assert problems == ["the database does not answer within 0.05 s"] * 5

    assert database.checks == 1
    database.answers.set()
    assert await probe.problem() is None


async def test_an_unexpected_error_is_a_reason_without_its_text(database: Database) -> None:
    database.error = KeyError("secret")

    assert await probe_of(database).problem() == "the database does not answer: KeyError"


async def test_a_change_is_logged_and_shown_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()
    probe = DatabaseProbe(database.check, DatabaseMetrics(registry), interval_s=0)

    shown = []
    for error in (None, StorageUnavailable("gone"), StorageUnavailable("gone"), None, None):
        database.error = error
        await probe.problem()
        shown.append(registry.get_sample_value("msgtrace_database_answers"))

    assert [record.message for record in caplog.records] == [
        "database_unreachable",
        "database_reachable_again",
    ]
    assert shown == [1, 0, 0, 1, 1]


@pytest.mark.parametrize(("queued_bytes", "is_ready"), [(0, True), (79, True), (80, False)])
async def test_a_queue_at_its_high_water_mark_wants_no_more(
    queued_bytes: int, is_ready: bool
) -> None:
    readiness = Readiness(queue_problem(lambda: queued_bytes, 100))

    reasons = await readiness.reasons()

    assert reasons == ([] if is_ready else ["the queue holds 80 bytes of at most 100"])


async def test_a_service_that_stops_is_not_ready(database: Database) -> None:
    readiness = Readiness(probe_of(database).problem)
    async with readiness.watched():
        assert await readiness.reasons() == []
        assert not await readiness.stops_within(0.01)

    assert await readiness.reasons() == [STOPPING]
    assert await readiness.stops_within(60)


# The endpoints


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    readiness = Readiness(probe_of(database, interval_s=0).problem)
    app = Starlette(routes=operator_routes())
    app.state.operator = OperatorView(readiness, registry)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        yield client


async def test_ready_says_why_it_is_not(client: httpx.AsyncClient, database: Database) -> None:
    response = await client.get("/ready?probe=1")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})

    database.error = StorageUnavailable("gone")

    response = await client.get("/ready")
    reasons = ["the database does not answer: gone"]
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "reasons": reasons}


async def test_health_asks_no_database(client: httpx.AsyncClient, database: Database) -> None:
    database.error = StorageUnavailable("gone")

    assert (await client.get("/health")).status_code == 200
    assert database.checks == 0


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
