from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import pytest

from msgtrace.errors import PortUnavailable
from msgtrace.settings.table import Settings
from tests.cli.conftest import Run

RUNNERS = {
    "start": ("msgtrace.cli.start", "run_all"),
    "collector": ("msgtrace.collector", "run_collector"),
    "query": ("msgtrace.query_service", "run_query_service"),
}


class FakeService:
    """Stands where a service is composed and keeps the settings and choices it was given."""

    def __init__(self) -> None:
        self.settings: list[Settings] = []
        self.choices: set[str] = set()
        self.error: Exception | None = None

    async def __call__(self, settings: Settings, **choices: bool) -> None:
        await asyncio.sleep(0)
        self.settings.append(settings)
        self.choices = {name for name, is_chosen in choices.items() if is_chosen}
        if self.error is not None:
            raise self.error


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService()
    for module_name, function_name in RUNNERS.values():
        module = ModuleType(module_name)
        setattr(module, function_name, fake)
        monkeypatch.setitem(sys.modules, module_name, module)
    return fake


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("command", RUNNERS)
def test_a_service_runs_with_the_settings_of_its_flags(
    service: FakeService, run: Run, command: str
) -> None:
    result = run(command, "--host", "::1", "--log-level", "debug", "--no-auto-migrate")

    assert result.exit_code == 0
    assert service.settings == [Settings(host="::1", log_level="debug", auto_migrate=False)]


@pytest.mark.parametrize(
    ("flags", "choices"),
    [
        ([], set()),
        (["--one-port"], {"on_one_port"}),
        (["--one-port", "--until-stdin-closes"], {"on_one_port", "until_stdin_closes"}),
    ],
)
def test_start_does_what_its_flags_choose(
    service: FakeService, run: Run, flags: list[str], choices: set[str]
) -> None:
    assert run("start", *flags).exit_code == 0

    assert service.choices == choices


def test_a_service_that_cannot_start_ends_as_one_sentence(service: FakeService, run: Run) -> None:
    service.error = PortUnavailable("port 4317 is taken")

    result = run("start")

    assert (result.exit_code, result.stderr) == (1, "Error: port 4317 is taken\n")


@pytest.mark.parametrize("command", RUNNERS)
def test_a_wrong_flag_is_named_before_anything_starts(
    service: FakeService, run: Run, command: str
) -> None:
    result = run(command, "--log-level", "loud")

    assert result.exit_code == 2
    assert "'--log-level': must be one of" in result.stderr
    assert service.settings == []


def test_a_wrong_variable_is_named(
    service: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSGTRACE_GRPC_PORT", "otlp")

    result = run("start")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: MSGTRACE_GRPC_PORT: must be a whole number")
    assert service.settings == []


@pytest.mark.parametrize("command", RUNNERS)
def test_a_misspelt_variable_is_warned_about(
    service: FakeService, run: Run, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSGTRACE_GRPC_PROT", "1")
    monkeypatch.setenv("MSGTRACE_SERVICE_NAME", "of the SDK")

    result = run(command)

    assert result.exit_code == 0
    [line] = result.stderr.splitlines()
    assert "unknown_variable variable=MSGTRACE_GRPC_PROT did_you_mean=MSGTRACE_GRPC_PORT" in line


def test_reload_without_its_package_names_the_cure(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "msgtrace.cli.reload", raising=False)
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    result = run("start", "--reload")

    assert result.exit_code == 1
    assert "pip install 'msgtrace[dev]'" in result.stderr
