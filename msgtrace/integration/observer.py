"""What a program holds: start, flush, stop, and the end of the process.

There is one live observer in a process. Light to import: OpenTelemetry and the modules that need it
are loaded when recording begins.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from msgtrace.integration.capture import Capture
    from msgtrace.integration.nesting import Repair
    from msgtrace.integration.server import LocalServer
    from msgtrace.integration.tracing import Telemetry

logger = logging.getLogger("msgtrace.integration")

T = TypeVar("T")

FLUSH_TIMEOUT_S = 5.0
"""How long a flush waits by default, and at the end of the program at most."""
HURRIED_FLUSH_TIMEOUT_S = 1.0
"""How long `os._exit` waits."""

_TRACES_PATH = "/v1/traces"


class CaptureOptions(NamedTuple):
    """What msgflux and the resource are asked to record."""

    state_dict: bool = False
    platform: bool = False
    tool_responses: bool = True
    agent_state: bool = False


class Observer:
    """Records the spans of this process until it is stopped; leaving its `with` block stops it."""

    def __init__(self, url: str, server: LocalServer | None, *, is_stopped: bool = False) -> None:
        """Made by the functions of msgtrace.integration. is_stopped: it could not be started."""
        self.url = url
        """Where msgtrace answers."""
        self._server = server
        self._telemetry: Telemetry | None = None
        self._repair: Repair | None = None
        self._capture: Capture | None = None
        self._is_stopped = is_stopped
        self._stopping = threading.Lock()

    @property
    def is_recording(self) -> bool:
        """Whether spans are sent: False if msgtrace could not be started or found."""
        return self._telemetry is not None and not self._is_stopped

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Send what has ended so far. True if the server has stored all of it."""
        telemetry = self._telemetry
        if telemetry is None or self._is_stopped:
            return False
        return _guarded(lambda: telemetry.flush(timeout_s), False)

    def stop(self) -> None:
        """Send what has ended, undo everything, and stop the server if this process has started it.

        Takes a few seconds at most. A second call does nothing. In a forked child it stops the
        recording of the child only.
        """
        self._end(is_leaving=False)

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "recording" if self.is_recording else "not recording"
        return f"<msgtrace observer at {self.url}, {state}>"

    def _record(
        self, headers: Mapping[str, str] | None, options: CaptureOptions, service_name: str | None
    ) -> None:
        """Begin to record; a failure is told of, and leaves the observer without recording."""

        def record() -> None:
            from msgtrace.integration import capture, nesting, tracing  # noqa: PLC0415 - load OpenTelemetry

            nesting.load_sdk()
            self._telemetry = tracing.Telemetry(
                _traces_url(self.url),
                headers=headers,
                service_name=service_name,
                names_platform=options.platform,
                ensure_running=self._server.ensure_running if self._server is not None else None,
            )
            self._repair = nesting.Repair()
            self._capture = capture.Capture(options)

        try:
            importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ImportError as error:
            _tell(f"{error}: pip install 'msgtrace[integration]'")
        else:
            _guarded(record, None)

    def _end(self, *, is_leaving: bool) -> None:
        with self._stopping:
            if self._is_stopped:
                return
            self._is_stopped = True
        telemetry, server = self._telemetry, self._server
        if telemetry is not None and not _guarded(lambda: telemetry.stop(FLUSH_TIMEOUT_S), False):
            logger.warning("the last spans did not reach %s in time", self.url)
        for change in (self._repair, self._capture):
            if change is not None:
                _guarded(change.undo, None)
        if server is not None:
            _guarded(server.leave if is_leaving else server.stop, None)
        _forget(self)


def start(
    port: int,
    db_path: str | os.PathLike[str] | None,
    *,
    options: CaptureOptions | None,
    service_name: str | None = None,
) -> Observer:
    """The live observer, or one with a server on this machine; it records if there are options."""
    if not 0 <= port <= 65_535:
        raise ValueError(f"port must be 0 to 65535, not {port}")
    with _lock:
        if _live is not None:
            return _reuse(_live, port, options, service_name)
        from msgtrace.integration.server import LocalServer, sqlite_url  # noqa: PLC0415 - not light

        server = LocalServer(port, None if db_path is None else sqlite_url(db_path))
        problem = _guarded(server.start, "the server could not be started")
        if problem:
            _tell(problem)
            return Observer(server.url, None, is_stopped=True)
        observer = Observer(server.url, server)
        _keep(observer)
        if options is not None:
            observer._record(None, options, service_name)
        return observer


def connect(
    server: Observer | None,
    endpoint: str,
    headers: Mapping[str, str] | None,
    *,
    options: CaptureOptions,
    service_name: str | None,
) -> Observer:
    """Record into a server that runs: that of `server`, else the one at `endpoint`."""
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"endpoint must begin with http:// or https://, not {endpoint!r}")
    with _lock:
        if server is not None and server._is_stopped:
            # Who answers at its address now is not known, and is not to be sent anything.
            _tell(f"the observer at {server.url} is not running")
            return server
        observer = server if server is not None else _live
        if observer is None:
            observer = Observer(endpoint.rstrip("/"), None)
            _keep(observer)
        elif server is None and observer.url != endpoint.rstrip("/"):
            _tell_of_live(observer)
        if observer._telemetry is None:
            observer._record(headers, options, service_name)
        return observer


_live: Observer | None = None
_lock = threading.RLock()
_original_exit: Any = os._exit


def _reuse(
    observer: Observer, port: int, options: CaptureOptions | None, service_name: str | None
) -> Observer:
    if port not in (0, _port_of(observer.url)):
        _tell_of_live(observer)
    if options is not None and observer._telemetry is None:
        observer._record(None, options, service_name)
    return observer


def _keep(observer: Observer) -> None:
    """Make it the live one, which the end of the process flushes."""
    global _live, _original_exit
    _live = observer
    atexit.register(_leave)
    if os._exit is not _exit_after_flush:
        _original_exit = os._exit
        os._exit = cast("Any", _exit_after_flush)


def _forget(observer: Observer) -> None:
    global _live
    with _lock:
        if _live is not observer:
            return
        _live = None
        atexit.unregister(_leave)
        if os._exit is _exit_after_flush:
            os._exit = _original_exit


def _leave() -> None:
    if _live is not None:
        _live._end(is_leaving=True)


def _exit_after_flush(status: int) -> None:
    """`os._exit`, with which also forked workers of multiprocessing end, after a short flush."""
    try:
        if _live is not None:
            _live.flush(HURRIED_FLUSH_TIMEOUT_S)
    finally:
        _original_exit(status)


def _guarded(call: Callable[[], T], otherwise: T) -> T:
    """What it returns; `otherwise`, after a warning, if it fails: the program goes on."""
    try:
        return call()
    except Exception:
        logger.warning("recording traces failed", exc_info=True)
        return otherwise


def _traces_url(url: str) -> str:
    """The URL to post to; one with a path is taken as it is."""
    place = url.partition("://")[2]
    return url if "/" in place else url + _TRACES_PATH


def _port_of(url: str) -> int:
    port = url.rpartition(":")[2]
    return int(port) if port.isdecimal() else 0


def _tell_of_live(observer: Observer) -> None:
    logger.warning("still recording at %s: stop that observer first", observer.url)


def _tell(problem: str) -> None:
    logger.warning("no traces are recorded: %s", problem)
