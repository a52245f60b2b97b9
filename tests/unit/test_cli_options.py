from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from msgtrace.cli.filters import Parameters, filter_options, to_arguments
from msgtrace.cli.main import main
from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.settings.sources import explain_settings
from msgtrace.settings.table import Settings, flag_name


def flags_of(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts}


def read(*arguments: str) -> list[SettingsSource]:
    """What a command with all settings receives; empty if it was not called."""
    received = []

    @click.command()
    @settings_options()
    def command(source: SettingsSource) -> None:
        received.append(source)

    CliRunner().invoke(command, arguments, catch_exceptions=False)
    return received


@pytest.mark.parametrize("command", ["start", "settings"])
@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(Settings)])
def test_every_setting_has_a_flag(command: str, field: str) -> None:
    assert flag_name(field) in flags_of(main.commands[command])


def test_every_setting_applies_to_a_part_of_the_program() -> None:
    together = flags_of(main.commands["collector"]) | flags_of(main.commands["query"])

    assert {flag_name(each.name) for each in dataclasses.fields(Settings)} <= together


def test_the_help_of_a_flag_says_meaning_variable_and_default() -> None:
    help_text = " ".join(CliRunner().invoke(main, ["start", "--help"]).stdout.split())

    for row in explain_settings():
        assert row.help in help_text
        assert f"[env: {row.variable}" in help_text
    assert "[env: MSGTRACE_PORT; default: 4321]" in help_text
    assert "[env: MSGTRACE_AUTO_MIGRATE; default: true]" in help_text


@pytest.mark.usefixtures("no_variables")
def test_flags_become_settings(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("port = 1\nhttp_port = 1\n")

    (source,) = read(
        *("--config", str(config), "--port", "2", "--no-auto-migrate"),
        *("--query-timeout-s", "1.5", "--cors-origins", "https://a, https://b"),
    )

    assert source.read() == Settings(
        port=2,
        http_port=1,
        auto_migrate=False,
        query_timeout_s=1.5,
        cors_origins=("https://a", "https://b"),
    )


def test_a_flag_of_the_wrong_kind_is_wrong_usage() -> None:
    assert read("--port", "http") == []


def test_a_flag_that_settings_refuse_is_named() -> None:
    (source,) = read("--port", "99999")

    with pytest.raises(click.BadParameter, match="must be 0 to 65535") as refused:
        source.read()
    assert refused.value.param_hint == "'--port'"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config", "a b.toml", "--host", "::1", "--port", "5"],
        ["--auto-migrate", "--connect-timeout-s", "2.5"],
        ["--no-auto-migrate", "--cors-origins", "https://a,https://b"],
    ],
)
def test_the_arguments_of_a_source_give_the_same_source(arguments: list[str]) -> None:
    (source,) = read(*arguments)

    assert read(*source.arguments()) == [source]


def test_the_arguments_of_filters_give_the_same_filters() -> None:
    filters = [
        ("service_name", "a b"),
        ("has_errors", "false"),
        ("min_duration_ms", "1.0"),
        ("start", "2026-03-01T12:00:00.000000000Z"),
        ("attr", "a=b"),
        ("attr", "c=d"),
        ("q", "--all"),
    ]
    received: list[Parameters] = []

    @click.command()
    @filter_options
    def command(filters: Parameters) -> None:
        received.append(filters)

    CliRunner().invoke(command, to_arguments(filters), catch_exceptions=False)

    assert received == [filters]
