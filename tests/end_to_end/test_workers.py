"""Several workers on the same ports: what one process promises, and that any of them may die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.batches import request, span
from tests.end_to_end.processes import (
    Ports,
    RunningProcess,
    run_to_end,
    running,
    wait_until,
)
from tests.end_to_end.senders import export
from tests.faults.audit import audit
from tests.faults.load import Load
from tests.postgres_server import cloned_database

pytestmark = pytest.mark.postgres

TWO = {"MSGTRACE_WORKERS": "2"}

BODY = request(span()).SerializeToString()


@contextlib.contextmanager
def two_workers(
    command: str, database_url: str, spill: Path, **settings: str
) -> Iterator[RunningProcess]:
    environment = {**TWO, "MSGTRACE_SPILL_DIR": str(spill), **settings}
    with running(command, database_url, environment=environment) as service:
        wait_until(lambda: "workers_started" in service.stderr, "both workers to serve")
        yield service


@pytest.fixture(scope="module")
def shared(
    postgres_admin_url: str, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProcess]:
    """For tests that only look."""
    with (
        cloned_database(postgres_admin_url, postgres_template) as url,
        two_workers("start", url, tmp_path_factory.mktemp("spill")) as service,
    ):
        yield service


def workers_of(service: RunningProcess) -> list[psutil.Process]:
    """The processes of the workers, in the order in which they were started."""
    children = psutil.Process(service.popen.pid).children()
    return sorted(children, key=lambda child: child.create_time())


def ready(service: RunningProcess) -> Any:
    return httpx.get(f"{service.otlp_url}/ready", trust_env=False, timeout=10).json()


def running_count(service: RunningProcess) -> int:
    return len(ready(service)["running"])


@contextlib.contextmanager
def watched_port(port: int) -> Iterator[list[str]]:
    """Connects all the time, and lists what went wrong."""
    problems: list[str] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
            except ConnectionRefusedError as error:
                problems.append(str(error))
            except OSError:
                continue  # reset: it was in the queue of the one that died, which a sender retries

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield problems
    finally:
        is_over.set()
        watcher.join()


def test_a_worker_that_is_killed_under_load_loses_nothing_and_comes_back(
    postgres_url: str, tmp_path: Path
) -> None:
    with two_workers("collector", postgres_url, tmp_path) as service:
        load = Load([service.ports], seed=5, deadlines_s=(10.0, 10.0))
        with (
            watched_port(service.ports.http) as http_problems,
            watched_port(service.ports.grpc) as grpc_problems,
            load.running(),
        ):
            load.wait_for_requests(50)
            for victim in workers_of(service):
                victim.kill()
                load.wait_until_all_succeed()
                wait_until(lambda: running_count(service) == 2, "a new worker")
            load.wait_for_requests(50)
        assert load.wrong_answers == []
        assert (http_problems, grpc_problems) == ([], [])
        assert ready(service)["restarts"] == 2
        assert service.stderr.count("worker_ended") == 2
        assert service.stop() < 10

    audit(postgres_url, load).require_clean()


@pytest.mark.parametrize(
    ("command", "number"), [("collector", signal.SIGTERM), ("start", signal.SIGINT)]
)
def test_a_stop_ends_all_workers_in_order(
    command: str, number: signal.Signals, postgres_url: str, tmp_path: Path
) -> None:
    with two_workers(command, postgres_url, tmp_path) as service:
        workers = workers_of(service)
        for wire in ("http", "grpc"):
            export(service, BODY, wire)

        assert service.stop(number) < 10

        assert len(re.findall(r"stopped requests=.* worker=[01]", service.stderr)) == 2
        assert not any(worker.is_running() for worker in workers)


def test_workers_stop_by_themselves_when_their_supervisor_is_killed(
    postgres_url: str, tmp_path: Path
) -> None:
    with two_workers("collector", postgres_url, tmp_path) as service:
        workers = workers_of(service)
        export(service, BODY)

        service.kill()

        _, left = psutil.wait_procs(workers, timeout=15)
        assert left == []
        assert service.stderr.count("supervisor_ended") == 2
        assert service.stderr.count("stopped requests=") == 2


def test_operators_see_all_workers_whichever_they_reach(shared: RunningProcess) -> None:
    with ThreadPoolExecutor(8) as pool:  # connections of their own: the kernel shares them out
        list(pool.map(lambda _: export(shared, BODY), range(24)))
    for url in (shared.otlp_url, shared.url):
        for _ in range(4):
            page = httpx.get(f"{url}/metrics", trust_env=False).text
            families = {each.name: each for each in text_string_to_metric_families(page)}
            received = families["msgtrace_requests_received"].samples
            assert sum(sample.value for sample in received) == 24
            assert {sample.labels["worker"] for sample in received} == {"0", "1"}
            [wanted] = families["msgtrace_workers"].samples
            assert (wanted.labels, wanted.value) == ({}, 2)
            assert families["msgtrace_running_workers"].samples[0].value == 2

            answer = httpx.get(f"{url}/ready", trust_env=False).json()
            assert answer["status"] == "ready"
            assert [each["worker"] for each in answer["running"]] == [0, 1]
            assert all(each["spill"]["requests"] == 0 for each in answer["running"])


def test_the_signal_of_a_terminal_reaches_the_workers_once(shared: RunningProcess) -> None:
    """Ctrl-C goes to the whole process group; a second one would end the workers at once."""
    for worker in workers_of(shared):
        assert os.getpgid(worker.pid) != os.getpgid(shared.popen.pid)


def test_nothing_secret_stands_on_a_command_line(shared: RunningProcess) -> None:
    for worker in workers_of(shared):
        assert re.fullmatch(r"\S+ -m msgtrace.cli.worker \d+", " ".join(worker.cmdline()))


def test_a_second_supervisor_is_told_that_the_port_is_taken(shared: RunningProcess) -> None:
    ended = run_to_end(
        "collector",
        environment={
            **TWO,
            "MSGTRACE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "MSGTRACE_GRPC_PORT": str(shared.ports.grpc),
            "MSGTRACE_HTTP_PORT": str(Ports.free().http),
        },
    )

    assert ended.returncode == 1
    assert f"port {shared.ports.grpc} on 127.0.0.1 is taken" in ended.stderr


def test_a_setting_that_stops_one_collector_stops_the_supervisor_with_one_sentence() -> None:
    ended = run_to_end(
        "collector",
        environment={
            **TWO,
            "MSGTRACE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "MSGTRACE_CONNECT_TIMEOUT_S": "0.5",
            "MSGTRACE_SPILL_DIR": "off",
            "MSGTRACE_GRPC_PORT": "0",
            "MSGTRACE_HTTP_PORT": "0",
        },
    )

    assert ended.returncode == 1
    assert ended.stderr.count("Error: cannot reach") == 1
    assert "Traceback" not in ended.stderr


def test_sqlite_is_refused(sqlite_url: str) -> None:
    ended = run_to_end("collector", environment={**TWO, "MSGTRACE_DATABASE_URL": sqlite_url})

    assert ended.returncode == 1
    assert "MSGTRACE_WORKERS: must be 1 with SQLite" in ended.stderr
