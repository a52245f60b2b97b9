"""The configurations for the OpenTelemetry Collector are whole, and only traces go to msgtrace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msgtrace.settings.table import Settings
from tests.deploy.files import DEPLOY, read_yaml

FILES = sorted((DEPLOY / "otel-collector").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def configuration(request: pytest.FixtureRequest) -> Any:
    return read_yaml(Path(request.param))


def exporters_of_ours(configuration: Any) -> dict[str, Any]:
    return {
        name: each
        for name, each in configuration["exporters"].items()
        if each["endpoint"].startswith("msgtrace-collector:")
    }


@pytest.mark.parametrize("kind", ["receivers", "processors", "exporters"])
def test_pipelines_use_exactly_what_is_configured(configuration: Any, kind: str) -> None:
    pipelines = configuration["service"]["pipelines"].values()

    assert {name for each in pipelines for name in each[kind]} == configuration[kind].keys()


def test_only_traces_go_to_msgtrace(configuration: Any) -> None:
    ours = exporters_of_ours(configuration).keys()

    assert ours
    for signal, pipeline in configuration["service"]["pipelines"].items():
        assert bool(ours & set(pipeline["exporters"])) == (signal == "traces")


def test_spans_wait_and_are_sent_again_while_msgtrace_is_away(configuration: Any) -> None:
    for exporter in exporters_of_ours(configuration).values():
        assert exporter["endpoint"].endswith(f":{Settings().grpc_port}")
        assert exporter["sending_queue"]["queue_size"] > 0
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"  # without an end


def test_what_keeps_a_queue_on_disk_is_started() -> None:
    forward = read_yaml(DEPLOY / "otel-collector" / "forward.yaml")
    (exporter,) = forward["exporters"].values()

    assert forward["service"]["extensions"] == [exporter["sending_queue"]["storage"]]
    assert forward["service"]["extensions"] == list(forward["extensions"])
