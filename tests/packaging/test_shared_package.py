"""msgtrace and msgtrace-sdk share the import package `msgtrace` and never harm each other.

One environment is made for all tests. First both wheels are installed into it the ordinary way,
which resolves the dependencies of both together and leaves them there; each test then takes the two
distributions out, and installs and uninstalls them with `--no-deps` in the order of its name. The
environment does not see the site-packages of the running one, where an editable install puts the
source tree on the path: that would answer imports that the wheel must answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.packaging.conftest import Built
from tests.packaging.environment import Environment

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("packaging"),
]

OURS, SDK = "msgtrace", "msgtrace-sdk"
MODULES = {
    "msgtrace.errors": OURS,
    "msgtrace.model.span": OURS,
    "msgtrace.integration": OURS,
    "msgtrace.sdk": SDK,
}
PROGRAMS = (("msgtrace", "--version"), ("msgtrace-admin", "--help"))

PROBE = """
import importlib, json, sys
found = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        found.append(name)
    except ModuleNotFoundError:
        pass
print(json.dumps(found))
"""

USER_CODE = """
from msgtrace.errors import TraceNotFound
from msgtrace.model.span import Span

def text_of(span: Span) -> int:
    return span.name

number: int = TraceNotFound("00").trace_id
"""


@pytest.fixture
def wheels(built: Built, sdk_wheel: Path) -> dict[str, Path]:
    return {OURS: built.wheel, SDK: sdk_wheel}


def check(environment: Environment, installed: set[str]) -> None:
    """Exactly the installed distributions are there, whole and working."""
    for distribution in (OURS, SDK):
        assert bool(environment.files_of(distribution)) == (distribution in installed)
        assert environment.damaged_files_of(distribution) == []
    importable = json.loads(environment.must_run("python", "-c", PROBE, *MODULES))
    assert importable == [name for name, owner in MODULES.items() if owner in installed]
    for program, flag in PROGRAMS:
        if OURS in installed:
            environment.must_run(program, flag)
        else:
            assert not (environment.folder / "bin" / program).exists()
    environment.pip("check")


def install(environment: Environment, wheel: Path) -> None:
    environment.pip("install", "--quiet", "--no-deps", "--no-index", wheel)


@pytest.mark.parametrize("removed", [OURS, SDK])
@pytest.mark.parametrize(("first", "second"), [(OURS, SDK), (SDK, OURS)])
def test_either_comes_and_goes_without_harm_to_the_other(
    bare: Environment, wheels: dict[str, Path], first: str, second: str, removed: str
) -> None:
    install(bare, wheels[first])
    check(bare, {first})

    install(bare, wheels[second])
    check(bare, {first, second})

    bare.pip("uninstall", "--quiet", "--yes", removed)
    check(bare, {first, second} - {removed})


def test_no_file_belongs_to_both(bare: Environment, wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        install(bare, wheel)

    assert bare.files_of(OURS).keys() & bare.files_of(SDK).keys() == set()


def test_nothing_stays_when_both_are_gone(bare: Environment) -> None:
    assert not (bare.site_packages / "msgtrace").exists()


@pytest.mark.parametrize("installed", [(OURS,), (OURS, SDK), (SDK, OURS)], ids="+".join)
def test_a_type_checker_sees_our_types(
    bare: Environment, wheels: dict[str, Path], installed: tuple[str, ...]
) -> None:
    for distribution in installed:
        install(bare, wheels[distribution])
    (bare.folder / "user_code.py").write_text(USER_CODE)

    said = bare.run("mypy", "--strict", "--no-error-summary", "user_code.py").stdout.splitlines()

    assert [line.rpartition("  [")[2] for line in said] == ["return-value]", "assignment]"]
    assert all('"str"' in line and '"int"' in line for line in said)
