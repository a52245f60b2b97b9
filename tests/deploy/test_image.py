"""The Dockerfile is clean, and what it installs is pinned and fits pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.dockerfile import ROOT, context_patterns, read_stages

LOCKS = ROOT / "deploy" / "lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {
    "runtime.txt": PROJECT["project"]["dependencies"],
    "build.txt": PROJECT["build-system"]["requires"],
    "native.txt": tomllib.loads((ROOT / "native" / "pyproject.toml").read_text())["build-system"][
        "requires"
    ],
}

PINNED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; .*)?(?P<hashes>( --hash=\S+)+)$")


@pytest.fixture(params=sorted(WANTED))
def lock(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pinned(lock: str) -> dict[str, tuple[Version, int]]:
    """Each package of a lock with its version and the number of its hashes."""
    lines = re.sub(r"\s*\\\n\s*", " ", (LOCKS / lock).read_text()).splitlines()
    found = [PINNED.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {
        canonicalize_name(match["name"]): (
            Version(match["version"]),
            len(match["hashes"].split()),
        )
        for match in found
        if match
    }


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")

    done = subprocess.run(
        [linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_of_a_lock_is_pinned_with_hashes(lock: str) -> None:
    packages = pinned(lock)

    assert packages
    assert [name for name, (_, hashes) in packages.items() if not hashes] == []


def test_a_lock_satisfies_what_pyproject_asks_for(lock: str) -> None:
    packages = pinned(lock)
    stale = []
    for requirement in map(Requirement, WANTED[lock]):
        version, _ = packages.get(canonicalize_name(requirement.name), (None, 0))
        if version is None or version not in requirement.specifier:
            stale.append(f"{requirement}, locked: {version}")

    assert stale == [], "run `make lock`"


def test_the_build_sees_all_that_it_copies() -> None:
    visible = context_patterns()
    copied = [
        name
        for stage in read_stages()
        for each in stage.instructions
        if each.name == "COPY" and "from" not in each.flags
        for name in each.words()[:-1]
    ]

    assert copied
    assert set(copied) <= set(visible)
    assert all((ROOT / name).exists() for name in visible if "*" not in name)


def test_the_image_runs_as_a_user_without_rights() -> None:
    user, group = read_stages()[-1].words_of("USER")[0].split(":")

    assert int(user) >= 10_000  # a number: Kubernetes cannot tell whether a name is root
    assert int(group) >= 10_000


def test_sources_change_no_layer_below_the_packages() -> None:
    build = next(stage for stage in read_stages() if stage.name == "build")
    names = [each.name for each in build.instructions]
    first_run = names.index("RUN")
    copied_before = [each.rest for each in build.instructions[:first_run] if each.name == "COPY"]

    assert copied_before == ["deploy/lock deploy/lock"]
