"""Child processes of a benchmark, and what they cost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def running_collector(
    database_url: str, *, workers: int = 1, log_level: str = "warning"
) -> Iterator[tuple[psutil.Process, dict[str, int]]]:
    """A collector on free ports of loopback; yields the process and its ports by wire."""
    ports = {"grpc": free_port(), "http": free_port()}
    environment = os.environ | {
        "MSGTRACE_DATABASE_URL": database_url,
        "MSGTRACE_GRPC_PORT": str(ports["grpc"]),
        "MSGTRACE_HTTP_PORT": str(ports["http"]),
        "MSGTRACE_LOG_LEVEL": log_level,
        "MSGTRACE_WORKERS": str(workers),
    }
    with tempfile.TemporaryDirectory(prefix="msgtrace-spill-") as spill:
        if not database_url.startswith("sqlite"):
            environment["MSGTRACE_SPILL_DIR"] = spill
        child = subprocess.Popen([sys.executable, "-m", "msgtrace", "collector"], env=environment)
        try:
            yield psutil.Process(child.pid), ports
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(30)


@contextlib.contextmanager
def running_query_service(database_url: str) -> Iterator[tuple[psutil.Process, int]]:
    """A query service on a free port of loopback; yields the process and its port."""
    port = free_port()
    environment = os.environ | {
        "MSGTRACE_DATABASE_URL": database_url,
        "MSGTRACE_PORT": str(port),
        "MSGTRACE_LOG_LEVEL": "warning",
    }
    child = subprocess.Popen([sys.executable, "-m", "msgtrace", "query"], env=environment)
    try:
        wait_for_port(port)
        yield psutil.Process(child.pid), port
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def wait_for_port(port: int, timeout_s: float = 30) -> None:
    """Return once something listens on loopback's `port`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class sampled_memory:  # noqa: N801 - reads as a block
    """Samples the resident bytes of a process and its children while the block runs.

    Ten times a second; what they share counts for each.
    """

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self._bytes: list[int] = []
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._bytes

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        self._bytes.append(self._resident_bytes())
        while not self._ended.wait(0.1):
            self._bytes.append(self._resident_bytes())

    def _resident_bytes(self) -> int:
        processes = [self._process, *self._process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process, of its living children and of those that have ended."""
    times = process.cpu_times()
    ended_s = times.children_user + times.children_system
    total_s: float = times.user + times.system + ended_s
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended in this moment
            total_s += sum(child.cpu_times()[:2])
    return total_s


def postgres_processes(url: str) -> list[psutil.Process]:
    """The server behind a URL with a socket folder; none for a server that is not ours to watch."""
    folder = url.partition("host=")[2]
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if folder
        and process.info["name"] == "postgres"
        and folder in " ".join(process.info["cmdline"] or ())
    ]
