"""The Kubernetes manifests fit together, are restricted, and keep what was acknowledged."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msgtrace.settings.table import Settings, variable_name
from tests.deploy.dockerfile import read_stages
from tests.deploy.files import DEPLOY, read_documents, read_yaml

BASE, EXAMPLE = DEPLOY / "kubernetes" / "base", DEPLOY / "kubernetes" / "example"
KUBERNETES = "1.34"
VALIDATOR = "kubernetes-validate>=1.37,<2"

OBJECTS: list[dict[str, Any]] = [
    document
    for name in read_yaml(BASE / "kustomization.yaml")["resources"]
    for document in read_documents(BASE / name)
]
WORKLOADS = [each for each in OBJECTS if each["kind"] in {"StatefulSet", "Deployment", "Job"}]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found


def name_of(workload: dict[str, Any]) -> str:
    return str(workload["metadata"]["name"])


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(workload)["containers"]
    return dict(container)


@pytest.fixture(params=WORKLOADS, ids=name_of)
def workload(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_the_base_lists_every_file() -> None:
    files = {path.name for path in BASE.iterdir()} - {"kustomization.yaml"}

    assert set(read_yaml(BASE / "kustomization.yaml")["resources"]) == files


def test_an_acknowledged_span_outlives_its_pod() -> None:
    collector = named("StatefulSet", "msgtrace-collector")
    container = container_of(collector)
    (claim,) = collector["spec"]["volumeClaimTemplates"]
    places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    environment = {each["name"]: each["value"] for each in container["env"]}

    assert environment["MSGTRACE_SPILL_DIR"] == places[claim["metadata"]["name"]]
    assert collector["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    assert claim["spec"]["resources"]["requests"]["storage"] == "4Gi"
    assert int(environment["MSGTRACE_MAX_SPILL_BYTES"]) <= 2**30


def test_no_pod_with_a_spill_is_taken_away_by_a_machine() -> None:
    scaler = named("HorizontalPodAutoscaler", "msgtrace-collector")

    assert scaler["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["spec"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}


def test_every_pod_is_restricted(workload: dict[str, Any]) -> None:
    pod, container = pod_of(workload), container_of(workload)
    user, group = read_stages()[-1].words_of("USER")[0].split(":")

    assert pod["automountServiceAccountToken"] is False
    assert (
        pod["securityContext"].items()
        >= {
            "runAsNonRoot": True,
            "runAsUser": int(user),
            "runAsGroup": int(group),
            "seccompProfile": {"type": "RuntimeDefault"},
        }.items()
    )
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_no_service_of_the_namespace_can_set_a_setting(workload: dict[str, Any]) -> None:
    assert pod_of(workload)["enableServiceLinks"] is False


def test_every_variable_is_a_setting(workload: dict[str, Any]) -> None:
    known = {variable_name(each.name) for each in dataclasses.fields(Settings)}
    given = {each["name"] for each in container_of(workload).get("env", [])}
    for source in container_of(workload)["envFrom"]:
        given |= named("ConfigMap", source["configMapRef"]["name"])["data"].keys()

    assert given <= known


def test_every_mount_has_its_volume_and_the_password_lies_where_it_is_looked_for(
    workload: dict[str, Any],
) -> None:
    claims = workload["spec"].get("volumeClaimTemplates", [])
    volumes = {each["name"] for each in pod_of(workload)["volumes"]}
    volumes |= {each["metadata"]["name"] for each in claims}
    mounts = {each["name"]: each["mountPath"] for each in container_of(workload)["volumeMounts"]}
    (secret,) = (each["secret"] for each in pod_of(workload)["volumes"] if "secret" in each)
    (given,) = read_documents(EXAMPLE / "secret.yaml")
    file = Path(named("ConfigMap", "msgtrace")["data"]["MSGTRACE_DATABASE_PASSWORD_FILE"])

    assert mounts.keys() == volumes
    assert given["metadata"]["name"] == secret["secretName"]
    assert str(file.parent) == mounts["secrets"]
    assert file.name in given["stringData"]
    assert secret["defaultMode"] == 0o440


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_services_probes_and_policies_name_ports_that_a_container_opens(kind: str) -> None:
    (workload,) = (each for each in WORKLOADS if each["kind"] == kind)
    container, label = container_of(workload), {"app.kubernetes.io/name": name_of(workload)}
    opened = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = [
        each for each in OBJECTS if each["kind"] == "Service" and each["spec"]["selector"] == label
    ]
    policy = named("NetworkPolicy", name_of(workload))["spec"]

    assert services
    for port in (port for each in services for port in each["spec"]["ports"]):
        assert opened[port["targetPort"]] == port["port"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in opened
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert policy["podSelector"]["matchLabels"] == label
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == opened.keys()


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_a_disruption_takes_one_pod_at_a_time(kind: str) -> None:
    (workload,) = (each for each in WORKLOADS if each["kind"] == kind)
    budget = named("PodDisruptionBudget", name_of(workload))["spec"]

    assert workload["spec"]["replicas"] >= 2
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == workload["spec"]["selector"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kustomize comes with kubectl")
def test_the_example_can_be_rendered() -> None:
    rendered = subprocess.run(
        ["kubectl", "kustomize", EXAMPLE], capture_output=True, text=True, check=True
    ).stdout

    assert rendered.count("\nkind: ") == len(OBJECTS) + 1
    assert "image: registry.example/msgtrace:0.1.0" in rendered
    assert "image: msgtrace\n" not in rendered


@pytest.mark.packaging
@pytest.mark.timeout(120)
def test_the_manifests_satisfy_the_schemas_of_kubernetes(tmp_path: Path) -> None:
    # Not a package of the test extra: its schemas are 17,000 files.
    uv = Path(sys.executable).with_name("uv")
    files = [path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml"]
    done = subprocess.run(
        [
            *(uv, "--quiet", "--no-config", "tool", "run", "--from", VALIDATOR),
            *("kubernetes-validate", "--strict", "--kubernetes-version", KUBERNETES),
            *(*files, EXAMPLE / "secret.yaml"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed for resource ") == len(OBJECTS) + 1
