"""Who can reach what: ports on the addresses that were asked for, and no other."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.end_to_end.processes import RunningProcess, running


def listening(process: RunningProcess) -> set[tuple[str, int]]:
    """Addresses and ports; gRPC shows an IPv4 address as one of IPv6."""
    return {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for connection in psutil.Process(process.popen.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.parametrize("command", ["start", "collector", "query"])
def test_ports_listen_on_loopback_alone_unless_told_otherwise(tmp_path: Path, command: str) -> None:
    with running(command, f"sqlite:///{tmp_path / 'msgtrace.db'}") as process:
        found = listening(process)

    ports = process.ports
    wanted = {"collector": {ports.grpc, ports.http}, "query": {ports.query}}
    assert {port for _, port in found} == wanted.get(command, {ports.grpc, ports.http, ports.query})
    assert {address for address, _ in found} == {"127.0.0.1"}


def test_no_page_of_another_origin_may_read_or_send(tmp_path: Path) -> None:
    with running("start", f"sqlite:///{tmp_path / 'msgtrace.db'}") as process:
        origin = {"Origin": "https://evil.example"}
        asked = origin | {"Access-Control-Request-Method": "DELETE"}
        answers = [
            process.client.get("/api/v1/traces", headers=origin),
            process.client.options("/api/v1/traces", headers=asked),
            process.client.post(f"{process.otlp_url}/v1/traces", headers=origin, json={}),
            process.client.options(f"{process.otlp_url}/v1/traces", headers=asked),
        ]

    assert all("access-control-allow-origin" not in answer.headers for answer in answers)
