"""The systemd units are valid and sandboxed; commands and settings that they name exist."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from msgtrace.cli import admin, main
from msgtrace.settings.table import Settings, variable_name
from tests.deploy.files import DEPLOY

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
BIN = "/opt/msgtrace/bin/"
MOST_EXPOSURE = 15
"""Tenths, as `systemd-analyze security` counts; a service that listens cannot have 0."""

PROGRAMS: dict[str, click.Group] = {"msgtrace": main.main, "msgtrace-admin": admin.main}

analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units with the programs of this environment, which systemd wants to see."""
    for path in UNITS:
        here = f"{Path(sys.executable).parent}/"
        (tmp_path / path.name).write_text(path.read_text().replace(BIN, here))
    return tmp_path


def lines(unit: Path, key: str) -> list[str]:
    begin = f"{key}="
    return [
        line.removeprefix(begin) for line in unit.read_text().splitlines() if line.startswith(begin)
    ]


def run(*arguments: str | Path, folder: Path) -> str:
    """What systemd-analyze says; empty if it finds nothing wrong."""
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        cwd=folder,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


@analyze
def test_the_units_are_valid(unit: Path, folder: Path) -> None:
    assert run("verify", "--man=no", folder / unit.name, folder=folder) == ""


@analyze
def test_the_units_are_sandboxed(unit: Path, folder: Path) -> None:
    threshold = f"--threshold={MOST_EXPOSURE}"

    assert run("security", "--offline=true", threshold, folder / unit.name, folder=folder) == ""


def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    (line,) = lines(unit, "ExecStart")
    program, command = line.removeprefix(BIN).split()

    assert command in PROGRAMS[program].commands


def test_a_unit_sets_settings_and_no_password(unit: Path) -> None:
    known = {variable_name(each.name) for each in dataclasses.fields(Settings)}
    given = [line.partition("=") for line in lines(unit, "Environment")]
    example = [
        line.partition("=")
        for line in (DEPLOY / "systemd" / "msgtrace.env").read_text().splitlines()
        if not line.startswith("#")
    ]

    assert {name for name, _, _ in given + example} <= known
    assert ("MSGTRACE_DATABASE_PASSWORD_FILE", "=", "%d/database_password") in given
    assert lines(unit, "LoadCredential") == ["database_password:/etc/msgtrace/database_password"]


def test_the_spill_is_state_that_systemd_keeps() -> None:
    (collector,) = (path for path in UNITS if path.stem == "msgtrace-collector")

    assert lines(collector, "StateDirectory") == ["msgtrace"]
    assert "MSGTRACE_SPILL_DIR=%S/msgtrace/spill" in lines(collector, "Environment")
