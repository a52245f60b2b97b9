"""Run one service in several processes on the same ports, and keep them running.

Path: cli.serve → [workers.supervisor] → cli.worker, once a worker. The kernel shares connections
out among the workers' sockets (SO_REUSEPORT). The supervisor itself serves nothing, stores nothing
and loads neither server nor driver.
A worker that ends is started again: at once if it had run well, else with a delay that doubles.
One that ends during the first start ends all, with its exit code: it has said what is wrong.
Stopping: all workers are asked at the same moment; what is left after `STOP_TIMEOUT_S` is killed.
A worker whose supervisor has ended stops in order by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import signal
import socket
import sys
import time
from typing import Any

from msgtrace.errors import InvalidSetting
from msgtrace.settings.table import Settings
from msgtrace.workers.messages import (
    AllShown,
    Assignment,
    Channel,
    Message,
    Serving,
    ShowAll,
    Shown,
    ShowYourself,
    Snapshot,
)
from msgtrace.workers.ports import reserved_ports

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 15.0
"""A worker stops within ten seconds by itself."""

SNAPSHOT_TIMEOUT_S = 1.0
"""How long one worker may take to show itself; without it the others are shown."""

WELL_AFTER_S = 10.0
"""A worker that ran for so long is started again at once."""

LEAST_DELAY_S, GREATEST_DELAY_S = 0.5, 30.0
"""Before a worker that ran shorter is started again; doubled each time."""

GIVE_UP_AFTER_S = 120.0
"""Once no worker has served for so long, the supervisor ends: somebody else may know better."""

EXIT_FAULT = 1

_SETTING = "MSGTRACE_WORKERS"


def share_of(settings: Settings) -> Settings:
    """The settings of one worker: together they hold in memory and on disk what one would."""
    count = settings.workers
    return dataclasses.replace(
        settings,
        workers=1,
        max_queued_bytes=max(1, settings.max_queued_bytes // count),
        max_inflight_bytes=max(1, settings.max_inflight_bytes // count),
        max_spill_bytes=max(1, settings.max_spill_bytes // count),
    )


async def supervise(service: str, settings: Settings) -> int:
    """Run `service` ("start" or "collector") in `settings.workers` processes until asked to stop.

    Returns the exit code. Raises ConfigError if it cannot begin.
    """
    if not sys.platform.startswith("linux"):
        raise InvalidSetting(_SETTING, "must be 1 here: only Linux shares out a port")
    if settings.database_url.startswith("sqlite"):
        raise InvalidSetting(_SETTING, "must be 1 with SQLite, where one process writes at a time")
    with reserved_ports(service, settings) as settings:
        return await _Supervisor(service, settings).run()


class _Supervisor:
    def __init__(self, service: str, settings: Settings) -> None:
        self._service = service
        self._share = share_of(settings)
        self._workers = [_Worker(number, self) for number in range(settings.workers)]
        self._stopping = asyncio.Event()
        self._is_first = True
        self.count = settings.workers
        self.restarts = 0

    async def run(self) -> int:
        """Until asked to stop, or until there is no use in going on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ask_to_stop)
        code = await self._start_all()
        if code is None:
            logger.info("workers_started", extra={"workers": len(self._workers)})
            code = await self._keep_running()
        self._stopping.set()
        codes = await asyncio.gather(*(worker.stop() for worker in self._workers))
        return max([code, *codes])

    async def _start_all(self) -> int | None:
        """Start the first worker alone, as it migrates the database; then the others.

        Returns None if all serve, 0 if asked to stop, else the exit code of one that ended.
        """
        for group in (self._workers[:1], self._workers[1:]):
            starts = [asyncio.create_task(worker.start()) for worker in group]
            if await self._is_stopped_before(asyncio.gather(*starts)):
                return 0
            codes = [start.result() for start in starts]
            if ended := [code for code in codes if code is not None]:
                return max(ended)
        return None

    async def _keep_running(self) -> int:
        keepers = asyncio.gather(*(worker.keep_running() for worker in self._workers))
        is_stopped = await self._is_stopped_before(asyncio.create_task(self._wait_while_useful()))
        keepers.cancel()
        await asyncio.gather(keepers, return_exceptions=True)
        return 0 if is_stopped else EXIT_FAULT

    async def _is_stopped_before(self, other: asyncio.Future[Any]) -> bool:
        """Wait for a stop or for `other`; True for a stop, `other` is cancelled then."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({stopping, other}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._stopping.is_set():
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
        return self._stopping.is_set()

    async def _wait_while_useful(self) -> None:
        """Return when no worker has served for too long."""
        served_at = time.monotonic()
        while time.monotonic() - served_at <= GIVE_UP_AFTER_S:
            if any(worker.is_serving for worker in self._workers):
                served_at = time.monotonic()
            await asyncio.sleep(1)
        logger.error("no_worker_serves", extra={"for_s": GIVE_UP_AFTER_S})

    def assignment(self, number: int) -> Assignment:
        """What a worker that begins is told."""
        is_first, self._is_first = self._is_first, False
        return Assignment(self._service, self._share, number, is_first)

    async def snapshots(self) -> list[Snapshot]:
        """Of all workers that answer in time."""
        shown = await asyncio.gather(*(worker.snapshot() for worker in self._workers))
        return [snapshot for snapshot in shown if snapshot is not None]

    def _ask_to_stop(self) -> None:
        if self._stopping.is_set():  # asked again: the workers end at once, as one alone would
            for worker in self._workers:
                worker.signal(signal.SIGTERM)
        self._stopping.set()


class _Worker:
    """One of the processes, and whichever replaces it."""

    def __init__(self, number: int, supervisor: _Supervisor) -> None:
        self.number = number
        self.is_serving = False
        self._supervisor = supervisor
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._listener: asyncio.Task[None] | None = None
        self._serving = asyncio.Event()
        self._questions = itertools.count()
        self._asked: dict[int, asyncio.Future[Snapshot]] = {}
        self._delays = Delays()
        self._answers: set[asyncio.Task[None]] = set()
        self._began_s = time.monotonic()

    async def start(self) -> int | None:
        """Start the process. None once it serves, its exit code if it ends before."""
        self._began_s = time.monotonic()
        self._serving.clear()
        self._process = None
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "msgtrace.cli.worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in a terminal is for the supervisor, which asks the workers once.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            logger.error("worker_not_started", extra={"reason": error.strerror or str(error)})
            return EXIT_FAULT
        finally:
            theirs.close()
        self._channel = await Channel.open(ours)
        self._channel.send(self._supervisor.assignment(self.number))
        self._listener = asyncio.create_task(self._listen(self._channel))
        return await self._serves_or_ends(self._process)

    async def _serves_or_ends(self, process: asyncio.subprocess.Process) -> int | None:
        serving = asyncio.create_task(self._serving.wait())
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            ended.cancel()
        self.is_serving = self._serving.is_set()
        if self.is_serving:
            return None
        self._forget()
        return _exit_code(ended.result())

    async def keep_running(self) -> None:
        """Start it again whenever it ends, until cancelled."""
        while True:
            code = EXIT_FAULT if self._process is None else await self._process.wait()
            self._forget()
            delay_s = self._delays.after(time.monotonic() - self._began_s)
            said = {"exit_code": _exit_code(code), "restart_in_s": delay_s}
            logger.error("worker_ended", extra={"worker": self.number, **said})
            await asyncio.sleep(delay_s)
            self._supervisor.restarts += 1
            await self.start()

    async def stop(self) -> int:
        """Ask the process to stop, and see to it that it has ended; returns its exit code."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            logger.error("worker_killed", extra={"worker": self.number, "after_s": STOP_TIMEOUT_S})
            self.signal(signal.SIGKILL)
            await self._process.wait()
        self._forget()
        code = self._process.returncode or 0
        return 0 if code == -signal.SIGTERM else _exit_code(code)  # asked before it could listen

    def signal(self, number: signal.Signals) -> None:
        """Send it, if the process still runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def snapshot(self) -> Snapshot | None:
        """What the worker shows of itself, None if it does not in time."""
        if self._channel is None or not self.is_serving:
            return None
        question = next(self._questions)
        asked = self._asked[question] = asyncio.get_running_loop().create_future()
        self._channel.send(ShowYourself(question))
        try:
            return await asyncio.wait_for(asked, SNAPSHOT_TIMEOUT_S)
        except TimeoutError:
            return None
        finally:
            self._asked.pop(question, None)

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            self._hear(channel, message)

    def _hear(self, channel: Channel, message: Message) -> None:
        if isinstance(message, Serving):
            self._serving.set()
        elif isinstance(message, Shown):
            asked = self._asked.get(message.question)
            if asked is not None and not asked.done():
                asked.set_result(message.snapshot)
        elif isinstance(message, ShowAll):
            # Not awaited here: this worker's own snapshot comes over the same channel.
            answer = asyncio.create_task(self._show_all(channel, message.question))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)

    async def _show_all(self, channel: Channel, question: int) -> None:
        supervisor = self._supervisor
        snapshots = await supervisor.snapshots()
        channel.send(AllShown(question, supervisor.count, supervisor.restarts, snapshots))

    def _forget(self) -> None:
        """The process has ended."""
        self.is_serving = False
        if self._listener is not None:
            self._listener.cancel()
        if self._channel is not None:
            self._channel.close()
        self._channel = self._listener = None


class Delays:
    """How long to wait before a worker is started again."""

    def __init__(self) -> None:
        self._next_s = LEAST_DELAY_S

    def after(self, lived_s: float) -> float:
        """The delay after one that lived for so long, in seconds."""
        if lived_s >= WELL_AFTER_S:
            self._next_s = LEAST_DELAY_S
            return 0.0
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, GREATEST_DELAY_S)
        return delay_s


def _exit_code(returncode: int) -> int:
    """As a shell tells it: 128 and the signal for a process that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode
