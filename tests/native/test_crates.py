"""The crates of the native decoder: few, each with its licence and a reason."""

from __future__ import annotations

import json
import re
import shutil
import tomllib

import pytest

from tests.native.cargo import NATIVE, cargo, has_packages

ROW = re.compile(r"^\| ([\w-]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)

OURS = "msgtrace-native"


def documented() -> dict[str, tuple[str, str]]:
    """Licence and reason of each crate that native/README.md names."""
    rows = ROW.findall((NATIVE / "README.md").read_text())
    return {name: (licence, why) for name, licence, why in rows if name != "crate"}


@pytest.fixture(scope="module")
def metadata() -> dict[str, str]:
    """The licence of each crate, as it says itself."""
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo to ask the crates for their licences")
    if not has_packages():
        pytest.skip("cargo cannot have the crates whose licences are asked for")
    told = cargo("metadata", "--format-version", "1")
    assert told.returncode == 0, told.stderr
    return {each["name"]: each["license"] for each in json.loads(told.stdout)["packages"]}


def test_each_crate_in_the_lock_is_listed_with_a_reason() -> None:
    locked = {
        each["name"] for each in tomllib.loads((NATIVE / "Cargo.lock").read_text())["package"]
    }

    assert documented().keys() == locked - {OURS}
    assert all(why.strip() for _, why in documented().values())


def test_each_licence_is_one_that_is_allowed() -> None:
    allowed = tomllib.loads((NATIVE / "deny.toml").read_text())["licenses"]["allow"]

    for name, (licence, _) in documented().items():
        for needed in licence.split(" AND "):
            choices = needed.strip("()").split(" OR ")
            assert set(choices) & set(allowed), f"{name}: {licence}"


def test_each_licence_is_what_the_crate_says_itself(metadata: dict[str, str]) -> None:
    listed = {name: licence for name, (licence, _) in documented().items()}

    assert listed == {name: licence for name, licence in metadata.items() if name != OURS}


def test_our_code_has_no_unsafe_code() -> None:
    lints = tomllib.loads((NATIVE / "Cargo.toml").read_text())["lints"]

    assert lints["rust"]["unsafe_code"] == "forbid"
