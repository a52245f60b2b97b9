"""A msgtrace on loopback: the one that answers on the port, or a child process of ours.

Path: observer → [integration.server] → `python -m msgtrace start` → its port.
The child holds the other end of a pipe. When nobody holds ours any more, because this process and
all that it forked have ended in whatever way, the child writes what it has read and ends.
Nothing is raised: a problem is a sentence.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

logger = logging.getLogger("msgtrace.integration")

HOST = "127.0.0.1"
TRACES_PATH = "/v1/traces"

START_TIMEOUT_S = 30.0
"""A start takes half a second; a busy machine and a database that migrates take longer."""
STOP_TIMEOUT_S = 10.0
"""Longer than the server gives to requests under way."""
LEAVE_TIMEOUT_S = 2.0
"""How long this process, when it ends, waits for the server to end."""
REVIVAL_PAUSE_S = 30.0
"""Between two attempts to start a server that could not be started."""

_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.02
_LOG_TAIL_BYTES = 2_000
_OWN_FLAGS = ("MSGTRACE_HOST", "MSGTRACE_PORT", "MSGTRACE_TLS_")
"""Beginnings of the variables that are for another server than a child on loopback."""


class LocalServer:
    """A msgtrace on `port`, started if there is none. One that ran before is never stopped."""

    def __init__(self, port: int, database_url: str | None = None) -> None:
        self.port = port or _free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._database_url = database_url
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._owner_pid = os.getpid()
        self._may_start = True
        self._not_before = 0.0
        self._lock = threading.Lock()

    @property
    def is_ours(self) -> bool:
        """Whether this process has started it."""
        return self._child is not None and self._owner_pid == os.getpid()

    def start(self) -> str:
        """Return "" once it takes traces, else the sentence that says why there is none."""
        found = _Answer.of(self.port)
        if found is not None:
            return self._attach(found)
        if importlib.util.find_spec("msgtrace.cli") is None:
            return "msgtrace's server is not installed: pip install msgtrace"
        if not sys.executable:
            return "this Python cannot start another one: run `msgtrace start` yourself"
        return self._spawn_and_wait()

    def ensure_running(self) -> None:
        """Start it again if it has ended, unless it is somebody else's to start.

        A server that another program has started for itself ends with that program, while this one
        may still need it.
        """
        if not self._may_start or _connects(self.port):
            return
        with self._lock:
            if time.monotonic() < self._not_before or _connects(self.port):
                return
            problem = self.start()
            if problem:
                self._not_before = time.monotonic() + REVIVAL_PAUSE_S
                logger.warning("%s has ended and cannot be started again: %s", self.url, problem)

    def stop(self) -> None:
        """Stop the server if this process has started it, and wait until it has ended."""
        self._may_start = False
        if self.is_ours:
            self._let_go(STOP_TIMEOUT_S, asks=True)

    def leave(self) -> None:
        """This process ends: so does the server, unless forked children still use it."""
        self._may_start = False
        if self.is_ours:
            self._let_go(LEAVE_TIMEOUT_S)

    def _attach(self, found: _Answer) -> str:
        if not found.is_msgtrace:
            return (
                f"port {self.port} is taken by another program that is not msgtrace;"
                " stop it, or choose another port"
            )
        self._may_start = found.ends_with_its_parent
        return "" if found.takes_traces else found.refusal(self.url)

    def _spawn_and_wait(self) -> str:
        self._discard_log()
        self._owner_pid = os.getpid()
        self._log = log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        try:
            self._child = subprocess.Popen(  # noqa: S603 - this Python, with arguments of ours
                self._command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_child_environment(),
                # A Ctrl-C is for the program; the server ends after it.
                start_new_session=True,
            )
        except (OSError, RuntimeError) as error:  # the latter at the end of the interpreter
            return f"cannot start {sys.executable}: {error}"
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            has_ended = self._child.poll() is not None
            found = _Answer.of(self.port)
            if has_ended:
                # Another program may have started one at the same moment.
                return self._attach(found) if found is not None else _reason(log)
            if found is not None and found.takes_traces:
                return ""
            time.sleep(_POLL_S)
        self.stop()
        return f"the server did not start within {START_TIMEOUT_S:g} s"

    def _command(self) -> list[str]:
        # -P: no module in the program's folder stands before those of Python.
        command = [sys.executable, "-P", "-m", "msgtrace", "start", "--one-port"]
        command += ["--until-stdin-closes", "--host", HOST, "--port", str(self.port)]
        command += ["--log-level", "warning", "--workers", "1"]
        if self._database_url is not None:
            command += ["--database-url", self._database_url]
        return command

    def _let_go(self, timeout_s: float, *, asks: bool = False) -> None:
        """asks: by signal too, because forked children may hold the pipe."""
        child, self._child = self._child, None
        if child is not None:
            if asks:
                with contextlib.suppress(OSError):
                    child.terminate()
            if child.stdin is not None:
                child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout_s)
        self._discard_log()

    def _discard_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def _reason(log: IO[bytes]) -> str:
    """The last line that the child wrote."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_TAIL_BYTES))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return f"the server ended at once: {lines[-1] if lines else 'it wrote nothing'}"


class _Answer:
    """What a port answered."""

    def __init__(self, port: int) -> None:
        health = _ask(port, "GET", "/health")
        self.is_msgtrace = health[1].get("service") == "msgtrace"
        self.ends_with_its_parent = False
        self._status = 0
        if self.is_msgtrace:
            # A request of no bytes is an export of no spans.
            self._status = _ask(port, "POST", TRACES_PATH)[0]
            self.ends_with_its_parent = bool(_ask(port, "GET", "/ready")[1].get("ends_with_parent"))

    @classmethod
    def of(cls, port: int) -> _Answer | None:
        """None when nobody listens."""
        return cls(port) if _connects(port) else None

    @property
    def takes_traces(self) -> bool:
        return self._status == http.client.OK

    def refusal(self, url: str) -> str:
        if self._status in (http.client.NOT_FOUND, http.client.METHOD_NOT_ALLOWED):
            return f"{url} is a msgtrace that only answers queries: name its collector as endpoint"
        return f"the msgtrace at {url} answers exports with {self._status}"


def _ask(port: int, method: str, path: str) -> tuple[int, dict[str, object]]:
    """Status and JSON object of an answer; 0 and nothing where there is none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request(method, path, headers={"Content-Type": "application/x-protobuf"})
        response = connection.getresponse()
        body = response.read(65_536)
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    return response.status, parsed if isinstance(parsed, dict) else {}


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        return probe.connect_ex((HOST, port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _child_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_FLAGS)}


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """The database URL of a SQLite file."""
    return f"sqlite:///{Path(path).expanduser().absolute()}"
