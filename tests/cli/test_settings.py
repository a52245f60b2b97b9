from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from msgtrace.settings.table import Settings
from tests.cli.conftest import Run


def test_settings_show_value_and_source(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "msgtrace.toml"
    config.write_text('http_port = 1\nlog_format = "json"\n')
    monkeypatch.setenv("MSGTRACE_HTTP_PORT", "2")
    monkeypatch.setenv("MSGTRACE_GRPC_PORT", "2")

    result = run("settings", "--json", "--config", str(config), "--grpc-port", "3")

    shown = {row["variable"]: (row["value"], row["source"]) for row in json.loads(result.stdout)}
    assert len(shown) == len(dataclasses.fields(Settings))
    assert shown["MSGTRACE_GRPC_PORT"] == ("3", "flag")
    assert shown["MSGTRACE_HTTP_PORT"] == ("2", "environment")
    assert shown["MSGTRACE_LOG_FORMAT"] == ("json", "file")
    assert shown["MSGTRACE_PORT"] == ("4321", "default")


def test_settings_show_no_password(run: Run) -> None:
    result = run("settings", "--database-url", "postgresql://me:secret@db/traces")

    assert result.exit_code == 0
    assert "secret" not in result.output
    assert "postgresql://me:***@db/traces" in result.stdout


def test_settings_table_has_every_setting_on_one_line_in_a_pipe(run: Run) -> None:
    lines = run("settings").stdout.splitlines()

    assert len(lines) == 1 + len(dataclasses.fields(Settings))


def test_settings_warn_of_a_variable_that_nothing_reads(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSGTRACE_GRPC_PROT", "1")

    assert "MSGTRACE_GRPC_PROT; did you mean MSGTRACE_GRPC_PORT?" in run("settings").stderr


def test_settings_that_cannot_be_used_end_as_one_sentence(run: Run, tmp_path: Path) -> None:
    result = run("settings", "--config", str(tmp_path / "absent.toml"))

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: MSGTRACE_CONFIG_FILE: cannot read")
