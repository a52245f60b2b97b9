"""What the wheel and the source distribution hold."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Built

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("packaging"),
]

NAMES_OF_THE_SDK = ("msgtrace/__init__.py", "msgtrace/version.py", "msgtrace/sdk/")


def wheel_names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def sources() -> set[str]:
    """The package as it is in the tree, without what Python wrote beside it."""
    found = (path.relative_to(ROOT) for path in (ROOT / "msgtrace").rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def migrations() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "migrations").glob("*/*.sql")}


def test_the_wheel_holds_the_package_the_migrations_and_nothing_else(built: Built) -> None:
    names = {name for name in wheel_names(built.wheel) if ".dist-info/" not in name}

    assert migrations()
    assert names == sources() | {f"msgtrace/{name}" for name in migrations()}


def test_the_wheel_marks_the_package_as_typed(built: Built) -> None:
    assert "msgtrace/py.typed" in wheel_names(built.wheel)


def test_the_wheel_holds_its_license(built: Built) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names(built.wheel))


def test_the_wheel_leaves_the_names_of_the_sdk_alone(built: Built) -> None:
    assert [name for name in wheel_names(built.wheel) if name.startswith(NAMES_OF_THE_SDK)] == []


def test_the_source_distribution_holds_package_and_migrations(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert sources() | migrations() <= names
    assert [name for name in names if name.startswith(NAMES_OF_THE_SDK)] == []


def test_the_source_distribution_holds_what_its_tests_and_targets_need_and_no_more(
    built: Built,
) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.split("/")[1] for name in archive.getnames() if "/" in name}

    assert names == {
        *(".dockerignore", ".gitignore", "benchmarks", "CHANGELOG.md", "CONTRIBUTING.md"),
        *("deploy", "docker-compose.yml", "Dockerfile", "docs", "LICENSE", "Makefile"),
        *("migrations", "msgtrace", "PKG-INFO", "protos", "pyproject.toml", "README.md", "tests"),
        "zensical.toml",
    }


def test_the_source_distribution_builds_the_same_wheel(built: Built) -> None:
    assert built.wheel.read_bytes() == built.wheel_of_sdist.read_bytes()
