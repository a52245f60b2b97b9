"""The real wheel and source distribution, built once, and one environment to install them into."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.environment import Environment

ROOT = Path(__file__).parents[2]
SDK = "msgtrace-sdk>=1.2,<2"


@dataclass(frozen=True, slots=True)
class Built:
    """What a release would upload, and the wheel that others build from the source distribution."""

    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """One environment for the whole session, with the build backend in it."""
    created = Environment.create(tmp_path_factory.mktemp("environment"))
    created.pip("install", "--quiet", "hatchling>=1.27,<2")
    return created


@pytest.fixture(scope="session")
def built(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Built:
    target = tmp_path_factory.mktemp("built")
    sdist = build(environment, ROOT, "sdist", target)
    with tarfile.open(sdist) as archive:
        archive.extractall(target / "unpacked", filter="data")
    unpacked = next((target / "unpacked").iterdir())
    return Built(
        wheel=build(environment, ROOT, "wheel", target),
        sdist=sdist,
        wheel_of_sdist=build(environment, unpacked, "wheel", target / "of_sdist"),
    )


def build(environment: Environment, source: Path, kind: str, target: Path) -> Path:
    """Build with the backend itself: an isolated build would fetch it again each time."""
    script = (
        "import os, sys; from hatchling import build; os.chdir(sys.argv[1]); "
        f"os.makedirs(sys.argv[2], exist_ok=True); print(build.build_{kind}(sys.argv[2]))"
    )
    name = environment.must_run("python", "-c", script, source, target).splitlines()[-1]
    return target / name


@pytest.fixture(scope="session")
def sdk_wheel(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published msgtrace-sdk."""
    folder = tmp_path_factory.mktemp("sdk")
    environment.pip("download", "--quiet", "--no-deps", "--dest", folder, SDK)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def prepared(environment: Environment, built: Built, sdk_wheel: Path) -> Environment:
    """The environment with what both distributions depend on, resolved together, and mypy."""
    environment.pip("install", "--quiet", "mypy>=2.4,<3", built.wheel, sdk_wheel)
    environment.pip("check")
    return environment


@pytest.fixture
def bare(prepared: Environment) -> Environment:
    """The prepared environment with neither of the two distributions in it."""
    prepared.pip("uninstall", "--quiet", "--yes", "msgtrace", "msgtrace-sdk")
    return prepared
