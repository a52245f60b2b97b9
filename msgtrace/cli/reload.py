"""`msgtrace start --reload`: run the service as a child, start it anew when a source changes.

For development. A child that ends by itself, say from a syntax error, is started again at the next
change. A stop signal goes on to the child, which gets time to finish before it is killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click
import watchfiles

WATCHED_SUFFIXES = (".py", ".sql")
STOP_TIMEOUT_S = 15.0
_POLL_MS = 500


def supervise(arguments: Sequence[str]) -> None:
    """Keep `python -m msgtrace ARGUMENTS` running on the newest sources until SIGTERM or SIGINT."""
    stop = threading.Event()
    _stop_on_signals(stop)
    child = _start(arguments)
    is_reported = False
    for changes in watchfiles.watch(
        *source_folders(),
        watch_filter=lambda _, path: is_source(path),
        stop_event=stop,
        rust_timeout=_POLL_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    ):
        if changes:
            click.echo(f"{_describe(changes)}; restarting", err=True)
            _stop(child)
            child, is_reported = _start(arguments), False
        elif child.poll() is not None and not is_reported:
            click.echo(f"ended with {child.returncode}; waiting for a change", err=True)
            is_reported = True
    _stop(child)


def source_folders() -> list[Path]:
    """The package, and in a checkout the migrations beside it."""
    package = Path(__file__).resolve().parents[1]
    folders = (package, package.parent / "migrations")
    return [folder for folder in folders if folder.is_dir()]


def command(arguments: Sequence[str]) -> list[str]:
    """The child process."""
    return [sys.executable, "-m", "msgtrace", *arguments]


def is_source(path: str) -> bool:
    """Whether a change of this file asks for a restart."""
    return path.endswith(WATCHED_SUFFIXES)


def _describe(changes: set[tuple[watchfiles.Change, str]]) -> str:
    names = sorted({Path(path).name for _, path in changes})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} changed"


def _stop_on_signals(stop: threading.Event) -> None:
    def request_stop(_: int, __: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(arguments))  # noqa: S603 - this program, started again


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        click.echo(f"did not stop within {STOP_TIMEOUT_S:g} s; killing it", err=True)
        child.kill()
        child.wait()
