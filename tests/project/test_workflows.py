"""The workflows of GitHub Actions run what the repository has, with no more rights than needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import read_yaml, schema_problems

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

pytestmark = pytest.mark.skipif(not FILES, reason="a source distribution has no workflows")

MAKE = re.compile(r"\bmake ([a-z ]+)")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Any:
    return read_yaml(request.param)


def steps(workflow: Any) -> list[Any]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_every_workflow_satisfies_the_schema() -> None:
    assert schema_problems("vendor.github-workflows", *FILES) == ""


def test_every_job_is_bounded_in_time(workflow: Any) -> None:
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


def test_only_what_publishes_may_write(workflow: Any) -> None:
    rights = {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    }

    assert workflow["permissions"] == {"contents": "read"}
    assert rights in (
        {},
        {"publish": {"id-token": "write"}, "announce": {"contents": "write"}},
    )
    assert all(
        step["with"]["persist-credentials"] is False
        for step in steps(workflow)
        if step.get("uses", "").startswith("actions/checkout@")
    )


def test_no_secret_is_used(workflow: Any) -> None:
    assert "secrets." not in str(workflow)


def test_every_target_that_a_step_makes_exists(workflow: Any) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    made = {
        name for command in commands for match in MAKE.findall(command) for name in match.split()
    }

    assert made
    assert made <= targets


def test_the_tests_run_on_every_python_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    named = {each.rpartition(" ")[2] for each in project["classifiers"] if each.startswith(prefix)}

    assert set(read_yaml(FILES[0])["jobs"]["test"]["strategy"]["matrix"]["python"]) == named
