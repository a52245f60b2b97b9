"""A database, the collectors before it, and the senders before those."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.end_to_end.processes import Ports, Program, RunningProcess, start, wait_until
from tests.faults.load import Load
from tests.faults.network import FaultyProxy, faulty_proxy
from tests.faults.private_postgres import PrivatePostgres

DRAIN_TIMEOUT_S = 60.0
"""How long a drain may seem to stand still: one group is under way for so long at most."""

_BLOCK = 4096
_STEP = 32 * 2**20
_MARGIN = 2**20
"""How close the disk comes to being full in large steps.

A step that does not fit any more fails as a whole.
"""


@dataclass(kw_only=True)
class Stage:
    """What a fault may act upon. `postgres` and `proxy` are absent on SQLite, `path` elsewhere."""

    database_url: str
    """Past the proxy, for audits."""
    collector_url: str
    load: Load
    chance: random.Random
    program: Program = field(default_factory=Program)
    path: Path | None = None
    postgres: PrivatePostgres | None = None
    proxy: FaultyProxy | None = None
    disk: Path | None = None
    """A small file system of its own that holds the data, where one may be mounted."""
    clock: Path | None = None
    """The file that moves the clock of the collectors, see `movable_clock`."""
    settings: dict[str, str] = field(default_factory=dict)
    """More settings of the collectors."""
    collectors: list[RunningProcess] = field(default_factory=list)

    @property
    def server(self) -> PrivatePostgres:
        assert self.postgres is not None
        return self.postgres

    @property
    def network(self) -> FaultyProxy:
        assert self.proxy is not None
        return self.proxy

    @property
    def database(self) -> str:
        return self.database_url.rpartition("/")[2]

    def sleep(self, least_s: float, most_s: float) -> None:
        time.sleep(self.chance.uniform(least_s, most_s))

    def start_collector(self, ports: Ports) -> RunningProcess:
        collector = start(
            "collector",
            ports=ports,
            environment={"MSGTRACE_DATABASE_URL": self.collector_url, **self.settings},
            program=self.program,
        )
        self.collectors.append(collector)
        collector.wait_until_ready()
        return collector

    def kill_and_restart(self, collector: RunningProcess) -> None:
        """kill -9, and a new one on the same ports."""
        self.collectors.remove(collector)
        collector.kill()
        collector.close()
        self.start_collector(collector.ports)

    def spilled_requests(self) -> int:
        """Requests in the spills of all collectors; 0 where there is none."""
        return sum(_spilled_requests(each) for each in self.collectors)

    def wait_until_drained(self) -> None:
        """Return when everything acknowledged is in the database; fails if nothing moves."""
        while left := self.spilled_requests():
            wait_until(
                functools.partial(self._holds_less_than, left),
                f"the spill to be drained of {left} requests",
                DRAIN_TIMEOUT_S,
            )

    def _holds_less_than(self, spilled_requests: int) -> bool:
        return self.spilled_requests() < spilled_requests

    def require_all_running(self) -> None:
        """Nothing but a kill of ours may end a collector."""
        for collector in self.collectors:
            assert collector.is_running, f"a collector ended\n{collector.stderr[-3000:]}"

    def log_lines(self) -> int:
        """Of all collectors that run."""
        return sum(collector.stderr.count("\n") for collector in self.collectors)

    def cpu_s(self) -> float:
        """Of all collectors that run."""
        used = [psutil.Process(each.popen.pid).cpu_times() for each in self.collectors]
        return sum(times.user + times.system for times in used)

    def memory_bytes(self) -> int:
        """Resident, of the collector that takes most."""
        return max(psutil.Process(each.popen.pid).memory_info().rss for each in self.collectors)

    @contextlib.contextmanager
    def under_load(self) -> Iterator[Stage]:
        """Meanwhile the senders send. At the end each of them has been served."""
        with self.load.running():
            self.load.wait_for_requests(30)
            yield self
        self.require_all_running()

    def close(self) -> None:
        """kill -9: what was acknowledged needs no orderly end."""
        for collector in self.collectors:
            collector.close()


def _spilled_requests(collector: RunningProcess) -> int:
    answer = httpx.get(f"{collector.otlp_url}/ready", trust_env=False, timeout=30).json()
    return int(answer.get("spill", {}).get("requests", 0))


@contextlib.contextmanager
def sqlite_stage(
    path: Path,
    seed: int,
    *,
    collectors: int = 1,
    program: Program | None = None,
    settings: dict[str, str] | None = None,
    **load: object,
) -> Iterator[Stage]:
    """Collectors on one SQLite file. settings: more settings of the collectors."""
    url = f"sqlite:///{path}"
    ports = [Ports.free() for _ in range(collectors)]
    stage = Stage(
        database_url=url,
        collector_url=url,
        load=_load(ports, seed, load),
        chance=random.Random(seed),
        program=program or Program(),
        path=path,
        settings=settings or {},
    )
    with _with_collectors(stage, ports):
        yield stage


@contextlib.contextmanager
def postgres_stage(
    server: PrivatePostgres,
    seed: int,
    *,
    collectors: int = 1,
    disk: Path | None = None,
    program: Program | None = None,
    settings: dict[str, str] | None = None,
    **load: object,
) -> Iterator[Stage]:
    """Collectors on a new database of the server, through a proxy, with a spill.

    disk: a folder that is to hold the tables. settings: more settings of the collectors.
    """
    ports = [Ports.free() for _ in range(collectors)]
    with (
        _new_database(server, disk) as database,
        faulty_proxy(server.port) as proxy,
        tempfile.TemporaryDirectory(prefix="msgtrace-spill-") as spill,
    ):
        stage = Stage(
            database_url=server.url(database),
            collector_url=server.url(database).replace(f":{server.port}/", f":{proxy.port}/"),
            load=_load(ports, seed, load),
            chance=random.Random(seed),
            program=program or Program(),
            postgres=server,
            proxy=proxy,
            disk=disk,
            settings={"MSGTRACE_SPILL_DIR": spill, **(settings or {})},
        )
        with _with_collectors(stage, ports):
            yield stage


@contextlib.contextmanager
def small_disk(mebibytes: int) -> Iterator[Path | None]:
    """A file system in memory; None where mounting is not allowed."""
    options = f"size={mebibytes}m,mode=0755"
    with _mounted("-t", "tmpfs", "-o", options, "tmpfs") as folder:
        yield folder


@contextlib.contextmanager
def large_disk(gibibytes: int) -> Iterator[Path | None]:
    """An ext4 in a file, which takes no more room than it holds; None where that is not allowed."""
    with tempfile.NamedTemporaryFile(prefix="msgtrace-disk-") as image:
        image.truncate(gibibytes * 2**30)
        if shutil.which("mkfs.ext4") is None:
            yield None
            return
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image.name], check=True)
        with _mounted("-o", "loop", image.name) as folder:
            yield folder


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Meanwhile there is no room on the disk."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while shutil.disk_usage(disk).free:  # the others take some of it meanwhile
                free = shutil.disk_usage(disk).free
                _grow(file, min(max(free - _MARGIN, _BLOCK), _STEP))
        yield
    finally:
        ballast.unlink()


def _grow(file: io.FileIO, count: int) -> None:
    end = file.seek(0, os.SEEK_END)
    with contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), end, count)


def limited_files(count: int) -> Program:
    """The program with so many file descriptors at most."""
    shell = f'ulimit -n {count}; exec "$@"'
    return Program(arguments=("sh", "-c", shell, "sh", sys.executable, "-m", "msgtrace"))


_MOVABLE_CLOCK = """
import pathlib, time
_file = pathlib.Path({file!r})
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + int(_file.read_text() or 0)
time.time_ns = lambda: _time_ns() + int(_file.read_text() or 0) * 10**9
"""


def movable_clock(folder: Path) -> tuple[Path, Program]:
    """The program with a clock that is off by as many seconds as the file says."""
    clock = folder / "clock"
    clock.write_text("0")
    (folder / "sitecustomize.py").write_text(_MOVABLE_CLOCK.format(file=str(clock)))
    return clock, Program(environment={"PYTHONPATH": str(folder)})


def _load(ports: Sequence[Ports], seed: int, options: dict[str, object]) -> Load:
    return dataclasses.replace(Load(ports, seed), **options)  # type: ignore[arg-type]  # names of fields


@contextlib.contextmanager
def _with_collectors(stage: Stage, ports: Sequence[Ports]) -> Iterator[Stage]:
    try:
        for each in ports:
            stage.start_collector(each)
        yield stage
    finally:
        stage.close()


@contextlib.contextmanager
def _new_database(server: PrivatePostgres, disk: Path | None) -> Iterator[str]:
    """Its name. Dropped afterwards: without the disk it would hold up the server's recovery."""
    name = f"faults_{time.time_ns()}"
    if disk is None:
        server.execute(f"CREATE DATABASE {name}")
    else:
        folder = disk / name
        folder.mkdir()
        if server.user is not None:
            shutil.chown(folder, server.user)
        server.execute(
            f"CREATE TABLESPACE {name} LOCATION '{folder}'",
            f"CREATE DATABASE {name} TABLESPACE {name}",
        )
    try:
        yield name
    finally:
        server.ensure_running()
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        if disk is not None:
            # Without the checkpoint, the next recovery would look for the folder on the disk.
            server.execute(f"DROP TABLESPACE {name}", "CHECKPOINT")


@contextlib.contextmanager
def _mounted(*what: str) -> Iterator[Path | None]:
    folder = Path(tempfile.mkdtemp(prefix="msgtrace-disk-"))
    folder.chmod(0o755)
    try:
        if not _mount(*what, str(folder)):
            yield None
            return
        try:
            folder.chmod(0o755)
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mount(*arguments: str) -> bool:
    if shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0
