from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from msgtrace.cli import admin, main
from msgtrace.errors import ConfigError
from tests.cli.conftest import Run

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("grpc", "starlette", "asyncpg", "uvicorn", "uvloop", "google.protobuf")
GROUPS = (main.main, admin.main)
COMMANDS = [
    pytest.param(command, id=f"{group.name} {name}")
    for group in GROUPS
    for name, command in group.commands.items()
]


def test_importing_the_command_loads_no_server_and_no_driver() -> None:
    code = f"""
import sys
import msgtrace.cli.main
sys.exit(" ".join(name for name in {HEAVY!r} if name in sys.modules) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_has_help(command: click.Command) -> None:
    options = [each for each in command.params if isinstance(each, click.Option)]

    assert command.help
    assert [each.name for each in options if not each.help] == []
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


def test_commands_are_listed_in_the_order_of_a_first_day(run: Run) -> None:
    assert list(main.main.commands) == [
        "start",
        "collector",
        "query",
        "list",
        "show",
        "tail",
        "sessions",
        "stats",
        "export",
        "import",
        "clear",
        "settings",
        "ready",
    ]
    listed = run("-h").output
    assert listed.index("  start") < listed.index("  list") < listed.index("  clear")


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "msgtrace", "--version"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("msgtrace ")


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    assert run("lst").exit_code == 2


@pytest.mark.parametrize(
    ("raised", "exit_code", "said"),
    [
        (ConfigError("port 4317 is taken\x1b[2J"), 1, "Error: port 4317 is taken\\x1b[2J\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (click.Abort(), 130, "\n"),
    ],
)
def test_errors_on_purpose_end_as_one_sentence(
    raised: BaseException, exit_code: int, said: str
) -> None:
    @click.group(cls=type(main.main))
    def group() -> None: ...

    @group.command()
    def fail() -> None:
        raise raised

    result = CliRunner().invoke(group, ["fail"])

    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, said, "")
