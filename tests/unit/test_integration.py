"""What `msgtrace.integration` promises before anything is recorded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgtrace import integration
from msgtrace.integration import (
    Observer,
    configure_msgflux_telemetry,
    observer,
    quick_start,
    start_observer,
)
from msgtrace.integration.server import LocalServer, sqlite_url

LOADED = """
import sys
import msgtrace.integration
print(*sys.modules)
"""
HEAVY = {"dataclasses", "http", "inspect", "opentelemetry", "requests", "ssl", "subprocess"}


def test_importing_it_loads_nothing_heavy() -> None:
    loaded = set(subprocess.check_output([sys.executable, "-c", LOADED], text=True).split())

    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("msgtrace.")} == {
        "msgtrace.integration",
        "msgtrace.integration.observer",
    }


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_an_error_of_the_caller(port: int) -> None:
    for start in (quick_start, start_observer):
        with pytest.raises(ValueError, match=f"port must be 0 to 65535, not {port}"):
            start(port)


def test_an_endpoint_that_is_no_url_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"http:// or https://, not 'localhost:4318'"):
        configure_msgflux_telemetry(endpoint="localhost:4318")


@pytest.mark.parametrize(("variable", "port"), [("5000", 5000), ("", 4321), ("soon", 4321)])
def test_the_port_is_that_of_msgtrace_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, port: int
) -> None:
    monkeypatch.setenv("MSGTRACE_PORT", variable)

    assert integration._port(None) == port
    assert integration._port(6000) == 6000


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Observer]:
    """An observer that is live in this process, and records nothing."""
    live = Observer("http://127.0.0.1:4321", None)
    monkeypatch.setattr(observer, "_live", live)
    yield live
    monkeypatch.setattr(observer, "_live", None)


def test_there_is_one_live_observer_and_another_port_is_told_of(
    live: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    assert start_observer(4321) is live
    assert start_observer(0) is live
    assert caplog.records == []

    assert start_observer(5000) is live

    assert ["still recording at http://127.0.0.1:4321" in each for each in caplog.messages] == [
        True
    ]


def test_an_observer_that_records_nothing_can_be_used_all_the_same(live: Observer) -> None:
    with live:
        assert not live.is_recording
        assert not live.flush()
    live.stop()
    assert repr(live) == "<msgtrace observer at http://127.0.0.1:4321, not recording>"


def test_nothing_is_sent_to_where_no_server_could_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LocalServer, "start", lambda self: "the port is taken")
    failed = start_observer(5000)

    assert configure_msgflux_telemetry(server=failed) is failed

    assert not failed.is_recording
    assert caplog.messages == [
        "no traces are recorded: the port is taken",
        "no traces are recorded: the observer at http://127.0.0.1:5000 is not running",
    ]


def test_a_failure_of_ours_is_a_warning_and_the_program_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: LocalServer) -> str:
        raise OSError("no files left")

    monkeypatch.setattr(LocalServer, "start", fail)

    assert not quick_start(5000).is_recording
    assert caplog.messages == [
        "recording traces failed",
        "no traces are recorded: the server could not be started",
    ]


def test_a_free_port_is_taken_for_0() -> None:
    one, other = LocalServer(0), LocalServer(0)

    assert one.port > 0
    assert one.url == f"http://127.0.0.1:{one.port}"
    assert other.port != one.port


def test_a_relative_file_is_that_of_the_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert sqlite_url("traces.db") == f"sqlite:///{tmp_path}/traces.db"
