"""Every fault once: done under load, undone before it returns.

`SQLITE` and `POSTGRES` name those that each database can have; the tests and the torture take them
from there.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator

import httpx
import psutil

from tests.end_to_end.processes import RunningProcess, wait_until
from tests.faults.private_postgres import signal_all
from tests.faults.stage import Stage, full

Fault = Callable[[Stage], None]

BUSY_TIMEOUT_S = 5.0
"""How long a collector waits for SQLite's lock."""

WRITE_TIMEOUT_S = 30.0
"""How long a collector waits for a statement of PostgreSQL."""


def collector_killed(stage: Stage) -> None:
    """kill -9 in the midst of writing, and a new one on the same ports."""
    stage.sleep(0.0, 0.5)
    stage.kill_and_restart(stage.chance.choice(stage.collectors))


def collector_killed_often(stage: Stage) -> None:
    for _ in range(3):
        collector_killed(stage)


def collector_stopped_in_order(stage: Stage) -> None:
    """SIGTERM under load: exit 0, then a new one on the same ports."""
    collector = stage.chance.choice(stage.collectors)
    collector.stop()
    stage.kill_and_restart(collector)


def collector_suspended(stage: Stage) -> None:
    collector = stage.chance.choice(stage.collectors)
    collector.send_signal(signal.SIGSTOP)
    try:
        stage.sleep(0.5, 2.0)
    finally:
        collector.send_signal(signal.SIGCONT)


def deadlines_shorter_than_the_commit(stage: Stage) -> None:
    """The sender hangs up while its spans are being committed, and sends them again."""
    before = stage.load.troubles["deadline"]
    with stage.load.short_deadlines(0.001, 0.02):
        stage.sleep(1.5, 2.5)
    assert stage.load.troubles["deadline"] > before


def commits_later_than_the_deadline(stage: Stage) -> None:
    """The network to the database is slow: the commit comes after the sender has hung up."""
    stage.network.delay(0.05)
    try:
        deadlines_shorter_than_the_commit(stage)
    finally:
        stage.network.delay(0.0)


def lock_held(stage: Stage) -> None:
    """Another process holds SQLite's write lock for longer than the busy timeout."""
    with sqlite_lock(stage):
        stage.sleep(BUSY_TIMEOUT_S + 0.5, BUSY_TIMEOUT_S + 1.5)


@contextlib.contextmanager
def sqlite_lock(stage: Stage) -> Iterator[None]:
    assert stage.path is not None
    connection = sqlite3.connect(stage.path, isolation_level=None, timeout=30)
    with contextlib.closing(connection):
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def another_program_leaves(stage: Stage) -> None:
    """Somebody opens the file, looks, closes it; then the collector is killed.

    The last to leave a SQLite database deletes its WAL. Nobody may look like the last while a
    collector is there, whatever it has opened and closed: a probe makes it open the file again.
    """
    for collector in stage.collectors:
        assert httpx.get(f"{collector.otlp_url}/ready", trust_env=False).status_code == 200
    with sqlite_lock(stage):
        pass
    stage.sleep(0.3, 0.5)
    stage.kill_and_restart(stage.chance.choice(stage.collectors))


def files_may_not_grow(stage: Stage) -> None:
    """A full disk as a process sees it without a mount: no write beyond the present end."""
    assert stage.path is not None
    sizes = [path.stat().st_size for path in stage.path.parent.glob(f"{stage.path.name}*")]
    limited = [psutil.Process(each.popen.pid) for each in stage.collectors]
    most = stage.chance.choice((max(sizes), min(sizes), 4096))
    for process in limited:
        process.rlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        stage.sleep(1.0, 2.5)
    finally:
        for process in limited:
            process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def disk_full(stage: Stage) -> None:
    """No room where the tables are. Senders are refused, unless there is a spill."""
    assert stage.disk is not None
    before = stage.load.troubles["refused"]

    def is_felt() -> bool:
        return stage.load.troubles["refused"] > before or stage.spilled_requests() > 0

    stage.load.is_padded = True
    try:
        with full(stage.disk):
            wait_until(is_felt, "a full disk to be felt", 30)
            stage.load.is_padded = False  # all that is spilled now must fit on the disk later
            stage.sleep(1.0, 2.0)
    finally:
        stage.load.is_padded = False


def clock_stepped_back(stage: Stage) -> None:
    """The clock of the collectors goes back by more than a day, and later forth again."""
    assert stage.clock is not None
    stage.clock.write_text("-100000")
    try:
        stage.sleep(1.0, 2.0)
    finally:
        stage.clock.write_text("0")
    stage.sleep(0.5, 1.0)


def files_exhausted(stage: Stage) -> None:
    """More idle connections than the collector may have files."""
    with contextlib.ExitStack() as idle:
        for collector in stage.collectors:
            for port in (collector.ports.grpc, collector.ports.http):
                for _ in range(_open_file_limit(collector) * 2):
                    with contextlib.suppress(OSError):
                        connection = socket.create_connection(("127.0.0.1", port), timeout=0.05)
                        idle.enter_context(connection)
        stage.sleep(2.0, 3.0)


def postmaster_killed(stage: Stage) -> None:
    stage.server.kill()
    stage.sleep(0.2, 1.0)
    stage.server.start()


def backend_killed(stage: Stage) -> None:
    """kill -9 of one session: the server ends them all and recovers by itself."""
    pids = stage.server.session_pids(stage.database)
    signal_all(stage.chance.sample(pids, min(1, len(pids))), signal.SIGKILL)
    stage.sleep(0.5, 1.0)


def collector_killed_without_its_database(stage: Stage) -> None:
    """kill -9 of a collector whose acknowledged requests are in its spill only."""
    stage.server.stop("immediate")
    try:
        wait_until(lambda: stage.spilled_requests() > 0, "a spill", 30)
        stage.kill_and_restart(stage.chance.choice(stage.collectors))
        stage.sleep(0.0, 1.0)
    finally:
        stage.server.start()


def collector_killed_while_draining(stage: Stage) -> None:
    stage.server.stop("immediate")
    try:
        wait_until(lambda: stage.spilled_requests() > 0, "a spill", 30)
        stage.sleep(0.5, 1.0)
    finally:
        stage.server.start()
    stage.sleep(0.0, 1.2)
    stage.kill_and_restart(stage.chance.choice(stage.collectors))


def server_stopped_fast(stage: Stage) -> None:
    assert stage.server.stop("fast")
    stage.sleep(0.5, 1.5)
    stage.server.start()


def server_stopped_immediately(stage: Stage) -> None:
    assert stage.server.stop("immediate")
    stage.sleep(0.2, 1.0)
    stage.server.start()


def server_stopped_smart(stage: Stage) -> None:
    """New sessions are refused, old ones go on, until patience ends."""
    if not stage.server.stop("smart", timeout_s=2):
        assert stage.server.stop("fast")
    stage.server.start()


def sessions_suspended(stage: Stage) -> None:
    _suspend_sessions(stage, stage.chance.uniform(1.0, 3.0))


def sessions_suspended_beyond_the_timeout(stage: Stage) -> None:
    _suspend_sessions(stage, WRITE_TIMEOUT_S + 5)


def _suspend_sessions(stage: Stage, seconds: float) -> None:
    pids = stage.server.session_pids(stage.database)
    signal_all(pids, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        signal_all(pids, signal.SIGCONT)


def sessions_terminated(stage: Stage) -> None:
    """An administrator ends them."""
    for _ in range(8):
        _tell_sessions(stage, "pg_terminate_backend")
        stage.sleep(0.05, 0.2)


def statements_cancelled(stage: Stage) -> None:
    """An operator, or a statement_timeout, ends what is being written."""
    for _ in range(40):
        _tell_sessions(stage, "pg_cancel_backend")
        stage.sleep(0.01, 0.05)


def _tell_sessions(stage: Stage, function: str) -> None:
    stage.server.execute(
        f"SELECT {function}(pid) FROM pg_stat_activity"
        f" WHERE datname = '{stage.database}' AND application_name = 'msgtrace'"
    )


def connections_exhausted(stage: Stage) -> None:
    with stage.server.all_connections_taken(stage.database):
        stage.sleep(1.0, 2.0)


def read_only_phase(stage: Stage) -> None:
    stage.server.execute(
        "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
    )
    try:
        stage.sleep(1.5, 2.5)
    finally:
        stage.server.execute(
            "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"
        )


def network_refuses(stage: Stage) -> None:
    stage.network.refuse()
    stage.sleep(1.0, 2.0)
    stage.network.accept()


def network_resets(stage: Stage) -> None:
    for _ in range(8):
        stage.network.reset()
        stage.sleep(0.05, 0.3)


def network_delays(stage: Stage) -> None:
    stage.network.delay(0.2)
    try:
        stage.sleep(2.0, 3.0)
    finally:
        stage.network.delay(0.0)


def network_freezes(stage: Stage) -> None:
    _freeze_network(stage, stage.chance.uniform(1.0, 3.0))


def network_freezes_beyond_the_timeout(stage: Stage) -> None:
    _freeze_network(stage, WRITE_TIMEOUT_S + 5)


def network_freezes_and_resets(stage: Stage) -> None:
    """The answer to a commit is on its way when the connection breaks."""
    for _ in range(4):
        stage.network.freeze()
        stage.sleep(0.1, 0.4)
        stage.network.reset()
        stage.network.thaw()
        stage.sleep(0.1, 0.3)


def _freeze_network(stage: Stage, seconds: float) -> None:
    stage.network.freeze()
    try:
        time.sleep(seconds)
    finally:
        stage.network.thaw()


def _open_file_limit(collector: RunningProcess) -> int:
    soft, _ = psutil.Process(collector.popen.pid).rlimit(resource.RLIMIT_NOFILE)
    return soft


BOTH: list[Fault] = [
    collector_killed,
    collector_stopped_in_order,
    collector_suspended,
    deadlines_shorter_than_the_commit,
]

SQLITE: list[Fault] = [
    *BOTH,
    collector_killed_often,
    another_program_leaves,
    lock_held,
    files_may_not_grow,
]

POSTGRES: list[Fault] = [
    *BOTH,
    commits_later_than_the_deadline,
    collector_killed_without_its_database,
    collector_killed_while_draining,
    postmaster_killed,
    backend_killed,
    server_stopped_fast,
    server_stopped_immediately,
    server_stopped_smart,
    sessions_suspended,
    sessions_terminated,
    statements_cancelled,
    connections_exhausted,
    read_only_phase,
    network_refuses,
    network_resets,
    network_delays,
    network_freezes,
    network_freezes_and_resets,
]

LONG: list[Fault] = [sessions_suspended_beyond_the_timeout, network_freezes_beyond_the_timeout]
"""For the long form only: they take more than half a minute."""
