"""The real programs as child processes on loopback: started, waited for, stopped by their id.

What they print goes to files, so that no full pipe holds them up; conftest.py shows it beside a
failure. Every wait is bounded.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

ROOT = Path(__file__).parents[2]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 20.0

_FOREIGN = ("MSGTRACE_", "OTEL_")
_OF_THE_RUN = "MSGTRACE_DECODER"
"""No variable reaches the programs but this one, with which the tests themselves are run."""

NO_SPILL = {"MSGTRACE_SPILL_DIR": "off"}
"""For tests that read at once what they have sent.

Where the machine is so busy that a commit takes seconds, it would wait in the spill.
"""

_TRACEBACK = re.compile(r'^(Traceback|  File ")', re.MULTILINE)

STARTED: list[RunningProcess] = []
"""The services of the running test and of its fixtures, for the report of a failure."""


@dataclass(eq=False, kw_only=True)
class RunningProcess:
    """`msgtrace start`, `collector` or `query`. Its output is kept after it has ended."""

    command: str
    ports: Ports
    popen: subprocess.Popen[bytes]
    client: httpx.Client
    _files: tuple[IO[bytes], IO[bytes]]
    _final_output: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        """The query service."""
        return f"http://127.0.0.1:{self.ports.query}"

    @property
    def otlp_url(self) -> str:
        """OTLP/HTTP without a path."""
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def stdout(self) -> str:
        return self._output()[0]

    @property
    def stderr(self) -> str:
        return self._output()[1]

    def get(self, path: str, /, **parameters: str | int) -> Any:
        """The JSON of a successful GET of the query API."""
        response = self.client.get(path, params=parameters)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def get_trace(self, trace_id: str | bytes) -> Any:
        """The trace with its spans."""
        hex_id = trace_id if isinstance(trace_id, str) else trace_id.hex()
        return self.get(f"/api/v1/traces/{hex_id}")

    def wait_until_ready(self) -> None:
        """Return once the service answers. Fails if it ended instead."""
        answers = self._listens if self.command == "collector" else self._says_ready
        # Ports answer a moment before the log says so; a stop in between is one during the start.
        wait_until(
            lambda: not self.is_running or ("started" in self.stderr and answers()),
            f"{self.command} to be ready",
            START_TIMEOUT_S,
        )
        assert self.is_running, f"{self.command} ended with {self.popen.returncode}\n{self.stderr}"

    def send_signal(self, number: signal.Signals) -> None:
        """Send it to the process."""
        self.popen.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Ask it to stop, which must succeed without a fault; return the seconds it took."""
        self.send_signal(number)
        asked_at = time.monotonic()
        return self.wait_for_stop() - asked_at

    def wait_for_stop(self) -> float:
        """Return the moment of a clean end that was asked for."""
        try:
            code = self.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} does not stop\n{self.stderr}") from None
        ended_at = time.monotonic()
        assert code == 0, f"{self.command} ended with {code}\n{self.stderr}"
        assert not _TRACEBACK.search(self.stderr)
        return ended_at

    def kill(self) -> None:
        """kill -9."""
        self.popen.kill()
        self.popen.wait(STOP_TIMEOUT_S)

    def close(self) -> None:
        """Make sure that it has ended, and keep its output."""
        if self.is_running:
            self.kill()
        self.client.close()
        self._final_output = self._output()
        for file in self._files:
            file.close()

    def _output(self) -> tuple[str, str]:
        if self._final_output is not None:
            return self._final_output
        stdout, stderr = (_read(file) for file in self._files)
        return stdout, stderr

    def _listens(self) -> bool:
        return can_connect(self.ports.grpc) and can_connect(self.ports.http)

    def _says_ready(self) -> bool:
        try:
            return self.client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports of a service; a collector leaves `query` free, `msgtrace query` the others."""

    grpc: int
    http: int
    query: int

    @classmethod
    def free(cls) -> Ports:
        """Three ports that nothing listens on."""
        grpc, http, query = free_ports(3)
        return cls(grpc=grpc, http=http, query=query)


@dataclass(frozen=True, kw_only=True)
class Program:
    """How a program is run: from the repository, unless a test made a copy of it."""

    arguments: Sequence[str] = (sys.executable, "-m", "msgtrace")
    folder: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def running(
    command: str,
    database_url: str,
    *flags: str,
    ports: Ports | None = None,
    environment: Mapping[str, str] | None = None,
    program: Program | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[RunningProcess]:
    """A service that is ready. Afterwards it is stopped, unless the test has ended it."""
    process = start(
        command,
        *flags,
        ports=ports or Ports.free(),
        environment={"MSGTRACE_DATABASE_URL": database_url} | dict(environment or {}),
        program=program or Program(),
        stdin=stdin,
    )
    try:
        process.wait_until_ready()
        yield process
        if process.is_running:
            process.stop()
    finally:
        process.close()


def start(
    command: str,
    *flags: str,
    ports: Ports,
    environment: Mapping[str, str],
    program: Program,
    stdin: int = subprocess.DEVNULL,
) -> RunningProcess:
    """The service as it is started, not yet ready. The caller closes it."""
    files = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 - close() does it
    popen = subprocess.Popen(
        [*program.arguments, command, *flags],
        cwd=program.folder,
        env=child_environment(_port_variables(ports) | {**program.environment, **environment}),
        stdin=stdin,
        stdout=files[0],
        stderr=files[1],
    )
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{ports.query}", trust_env=False, verify=False, timeout=30
    )
    process = RunningProcess(command=command, ports=ports, popen=popen, client=client, _files=files)
    STARTED.append(process)
    return process


def run_to_end(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    program: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command that is to end by itself.

    program: an installed script to run instead of `python -m msgtrace`.
    """
    prefix = [sys.executable, "-m", "msgtrace"]
    if program is not None:
        prefix = [str(Path(sys.executable).with_name(program))]
    return subprocess.run(
        [*prefix, *arguments],
        cwd=ROOT,
        env=child_environment(environment or {}),
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of the tests without anybody's settings, and `extra`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == _OF_THE_RUN or not name.startswith(_FOREIGN)
    }
    return inherited | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | dict(extra)


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nothing listens on, and that no client will be given."""
    return list(itertools.islice(filter(_is_free, _ports), count))


def _own_ports() -> Iterator[int]:
    """Ports of this process of the test run, below those that systems give to clients."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 12_000 + number % 10 * _PORTS_OF_A_PROCESS
    offset = random.randrange(_PORTS_OF_A_PROCESS)  # another run may be under way
    return (first + (offset + n) % _PORTS_OF_A_PROCESS for n in itertools.count())


_PORTS_OF_A_PROCESS = 2_000
_ports = _own_ports()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def can_connect(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_true: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Return once `is_true`; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(0.02)


def _port_variables(ports: Ports) -> dict[str, str]:
    return {
        "MSGTRACE_GRPC_PORT": str(ports.grpc),
        "MSGTRACE_HTTP_PORT": str(ports.http),
        "MSGTRACE_PORT": str(ports.query),
    }


def _read(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")
