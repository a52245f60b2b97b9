"""The installed wheel works with only its declared dependencies, away from the source tree."""

from __future__ import annotations

import pytest

from tests.packaging.conftest import ROOT, Built
from tests.packaging.environment import Environment
from tests.packaging.test_distributions import migrations, sources

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("packaging"),
]

NOT_IMPORTED = {
    "msgtrace.__main__",  # runs the program
    "msgtrace.cli.reload",  # for development, needs watchfiles
    "msgtrace.otlp.native",  # of the extra native
}

LIST_MIGRATIONS = """
from msgtrace.storage.migrate import load_migrations
for backend in ("postgres", "sqlite"):
    for migration in load_migrations(backend):
        print(f"migrations/{backend}/{migration.name}.sql")
"""


@pytest.fixture
def installed(bare: Environment, built: Built) -> Environment:
    bare.pip("install", "--quiet", "--no-deps", "--no-index", built.wheel)
    return bare


def test_the_lock_is_complete_and_fits_the_wheel(
    built: Built, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lock = ROOT / "deploy" / "lock" / "runtime.txt"
    fresh = Environment.create_quickly(
        tmp_path_factory.mktemp("locked"), "--require-hashes", "--requirement", lock
    )
    fresh.install("--no-deps", "--offline", built.wheel)

    assert fresh.must_run("msgtrace", "--version").startswith("msgtrace ")
    assert fresh.must_run("python", "-c", LIST_MIGRATIONS)


def test_every_module_can_be_imported(installed: Environment) -> None:
    paths = (path.removesuffix(".py") for path in sources() if path.endswith(".py"))
    modules = {path.removesuffix("/__init__").replace("/", ".") for path in paths} - NOT_IMPORTED

    installed.must_run("python", "-W", "error", "-c", f"import {', '.join(sorted(modules))}")


def test_the_migrations_are_found(installed: Environment) -> None:
    assert set(installed.must_run("python", "-c", LIST_MIGRATIONS).split()) == migrations()
