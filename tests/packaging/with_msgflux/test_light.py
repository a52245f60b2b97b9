"""The light distribution sends to a msgtrace elsewhere, and brings nothing of the server."""

from __future__ import annotations

import importlib.metadata
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, build
from tests.packaging.environment import Environment
from tests.packaging.with_msgflux.conftest import Server, User

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("msgflux"),
]

LIGHT = ROOT / "deploy" / "integration"
OF_THE_SERVER = ("asyncpg", "click", "grpcio", "msgtrace", "starlette", "uvicorn")


@pytest.fixture(scope="module")
def light_wheel(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(environment, LIGHT, "wheel", tmp_path_factory.mktemp("light"))


def test_it_holds_the_integration_as_the_whole_distribution_does(light_wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(light_wheel).namelist() if "dist-info" not in name}

    sources = (ROOT / "msgtrace" / "integration").glob("*.py")
    assert names == {"msgtrace/py.typed"} | {
        f"msgtrace/integration/{each.name}" for each in sources
    }


def test_it_sends_and_has_no_server(
    user: User, server: Server, light_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    light = Environment.create_quickly(tmp_path_factory.mktemp("user_of_light"), light_wheel)
    installed = {
        each.name for each in importlib.metadata.distributions(path=[str(light.site_packages)])
    }
    assert "msgtrace-integration" in installed
    assert installed.isdisjoint(OF_THE_SERVER)

    done = light.run("python", *user.program("only_sends", server.url))

    assert (done.returncode, done.stdout) == (0, "False True")
    assert done.stderr.splitlines() == [
        "no traces are recorded: msgtrace's server is not installed: pip install msgtrace"
    ]
    (trace,) = server.take()
    assert trace.tree == ("sent from afar", ())
    assert trace.summary["service_name"] == "light"


def test_its_version_and_requirements_are_those_of_the_extra() -> None:
    light = tomllib.loads((LIGHT / "pyproject.toml").read_text())["project"]
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert light["version"] == whole["version"]
    assert light["requires-python"] == whole["requires-python"]
    assert light["dependencies"] == whole["optional-dependencies"]["integration"]
