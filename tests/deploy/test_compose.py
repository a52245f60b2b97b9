"""`docker compose up` is all it takes, and what comes up is restricted, bounded and private."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.batches import request, span
from tests.deploy.compose import COMPOSE, OURS, SERVICES, Topology
from tests.deploy.dockerfile import ROOT
from tests.deploy.files import DEPLOY, read_yaml, schema_problems
from tests.end_to_end.processes import Ports, Program, RunningProcess, running
from tests.end_to_end.senders import export
from tests.faults.private_postgres import private_postgres

SERVING = sorted(name for name, each in SERVICES.items() if each.get("restart") == "unless-stopped")


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    with private_postgres() as server:
        for volume in COMPOSE["volumes"]:
            (tmp_path / volume).mkdir()
        yield Topology(tmp_path, server)


def test_the_file_satisfies_the_compose_specification() -> None:
    assert schema_problems("vendor.compose-spec", ROOT / "docker-compose.yml") == ""


@pytest.mark.parametrize("service", SERVING)
def test_every_serving_service_is_bounded(service: str) -> None:
    each = SERVICES[service]

    assert each["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert each["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "no-new-privileges:true" in each["security_opt"]


@pytest.mark.parametrize("service", [*OURS, "prometheus", "grafana"])
def test_what_needs_no_rights_has_none(service: str) -> None:
    each = SERVICES[service]

    assert each["read_only"] is True
    assert each["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(service: str) -> None:
    ports = SERVICES[service].get("ports", [])

    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert service != "postgres" or not ports


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_secret_stands_in_the_environment(service: str) -> None:
    for name, value in SERVICES[service].get("environment", {}).items():
        assert "PASSWORD" not in name or value.startswith("/run/msgtrace/")
        assert ":" not in str(value).partition("://")[2].partition("@")[0]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_what_a_service_mounts_and_waits_for_exists(service: str) -> None:
    for volume in SERVICES[service].get("volumes", []):
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).exists()
    assert SERVICES[service].get("depends_on", {}).keys() <= SERVICES.keys()


def test_services_start_after_what_they_need() -> None:
    for service in ("collector", "query"):
        assert SERVICES[service]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"}
        }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_only_the_profile_starts_the_monitoring() -> None:
    profiles = {name: each["profiles"] for name, each in SERVICES.items() if "profiles" in each}

    assert profiles == {"prometheus": ["monitoring"], "grafana": ["monitoring"]}


def test_prometheus_scrapes_the_ports_of_the_services() -> None:
    jobs = read_yaml(ROOT / "deploy" / "prometheus" / "prometheus.yml")["scrape_configs"]
    targets = {
        target for job in jobs for each in job["static_configs"] for target in each["targets"]
    }

    assert targets == {"collector:4318", "query:4321"}


@pytest.mark.postgres
@pytest.mark.end_to_end
@pytest.mark.timeout(180)
def test_the_services_work_together_as_the_file_says(topology: Topology) -> None:
    assert topology.run("passwords").returncode == 0
    before = {path.name: path.read_text() for path in (topology.folder / "secrets").iterdir()}
    assert topology.run("passwords").returncode == 0
    after = {path.name: path.read_text() for path in (topology.folder / "secrets").iterdir()}
    assert before == after
    assert len(set(after.values())) == len(after) == 3
    assert {len(password) for password in after.values()} == {48}

    topology.prepare_postgres()
    migrated = topology.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert "applied 0001" in migrated.stdout

    trace_id = secrets.token_bytes(16)
    with started(topology, "collector") as collector, started(topology, "query") as query:
        export(collector, request(span(trace_id=trace_id)).SerializeToString(), "grpc")
        assert query.get_trace(trace_id)["span_count"] == 1
    logs = collector.stderr + query.stderr + migrated.stderr
    assert not any(password in logs for password in after.values())

    assert asyncio.run(count_as_reader(topology, after["reader_password"])) == 1

    wrong = topology.folder / "wrong"
    wrong.write_text("not the password")
    refused = topology.run("migrate", MSGTRACE_DATABASE_PASSWORD_FILE=str(wrong))
    assert refused.returncode == 1
    assert "password authentication failed" in refused.stderr
    assert "not the password" not in refused.stderr


@contextlib.contextmanager
def started(topology: Topology, service: str) -> Iterator[RunningProcess]:
    """A service of ours, healthy by its own health check."""
    (program, command) = topology.words(service)
    ports = Ports.free()
    environment = topology.environment(service)
    numbers = {
        "MSGTRACE_GRPC_PORT": str(ports.grpc),
        "MSGTRACE_HTTP_PORT": str(ports.http),
        "MSGTRACE_PORT": str(ports.query),
    }
    with running(
        command,
        environment["MSGTRACE_DATABASE_URL"],
        ports=ports,
        environment=environment,
        program=Program(arguments=[str(Path(sys.executable).with_name(program))]),
    ) as process:
        assert topology.check_health(service, **numbers).returncode == 0
        yield process


async def count_as_reader(topology: Topology, password: str) -> int:
    """The number of spans that the role of the dashboards sees; it must not be able to write."""
    source = read_yaml(DEPLOY / "grafana/provisioning/datasources/msgtrace.yml")["datasources"][1]
    assert source["secureJsonData"]["password"] == "$__file{/run/msgtrace/reader_password}"
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=topology.server.port,
        user=source["user"],
        password=password,
        database=source["jsonData"]["database"],
    )
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM spans")
        return int(await connection.fetchval("SELECT count(*) FROM span_view"))
    finally:
        await connection.close()
