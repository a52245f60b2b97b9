"""TLS on all three ports, with OpenTelemetry's exporters and without."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.batches import request, span
from tests.certificates import Authority, CertificateFiles, replace
from tests.end_to_end.processes import (
    Ports,
    Program,
    RunningProcess,
    run_to_end,
    start,
    wait_until,
)
from tests.end_to_end.senders import EXPORT_METHOD, PROTOBUF
from tests.end_to_end.shapes import make_spans

CA = Authority("servers' CA")
CLIENTS = Authority("clients' CA")
OTHERS = Authority("CA of somebody else")

RELOAD_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class SecureService:
    """A running service and the files of both sides."""

    process: RunningProcess
    folder: Path
    server: CertificateFiles
    ca: Path
    client: CertificateFiles | None

    @property
    def ports(self) -> list[int]:
        return [self.process.ports.grpc, self.process.ports.http, self.process.ports.query]

    def context(self, *, shows_certificate: bool = True) -> ssl.SSLContext:
        """What a client of this service trusts and shows."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.client is not None and shows_certificate:
            context.load_cert_chain(self.client.certificate, self.client.key)
        return context

    def serial_number(self, port: int) -> int:
        """Which certificate the port shows to a new connection."""
        context = self.context()
        context.set_alpn_protocols(["h2"])
        with connected(port, context) as connection:
            certificate = connection.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number

    def channel(self) -> grpc.Channel:
        files = self.client
        credentials = grpc.ssl_channel_credentials(
            self.ca.read_bytes(),
            files.key.read_bytes() if files else None,
            files.certificate.read_bytes() if files else None,
        )
        return grpc.secure_channel(
            self.process.grpc_target, credentials, options=[("grpc.enable_http_proxy", 0)]
        )


@contextlib.contextmanager
def connected(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        yield secure


@contextlib.contextmanager
def secure_service(folder: Path, *, is_mutual: bool) -> Iterator[SecureService]:
    ca = folder / "ca.crt"
    ca.write_bytes(CA.pem)
    server = CA.issue("server").write(folder, "server")
    environment = {
        "MSGTRACE_DATABASE_URL": f"sqlite:///{folder / 'msgtrace.db'}",
        "MSGTRACE_TLS_CERT_FILE": str(server.certificate),
        "MSGTRACE_TLS_KEY_FILE": str(server.key),
    }
    client = None
    if is_mutual:
        client = CLIENTS.issue("client").write(folder, "client")
        (folder / "clients.crt").write_bytes(CLIENTS.pem)
        environment["MSGTRACE_TLS_CLIENT_CA_FILE"] = str(folder / "clients.crt")
    process = start("start", ports=Ports.free(), environment=environment, program=Program())
    service = SecureService(process, folder, server, ca, client)
    process.client.close()
    process.client = httpx.Client(
        base_url=f"https://127.0.0.1:{process.ports.query}",
        trust_env=False,
        verify=service.context(),
        timeout=30,
    )
    try:
        process.wait_until_ready()
        yield service
        if process.is_running:
            process.stop()
    finally:
        process.close()


@pytest.fixture(scope="module", params=[False, True], ids=["tls", "mtls"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureService]:
    with secure_service(tmp_path_factory.mktemp("tls"), is_mutual=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureService]:
    with secure_service(tmp_path_factory.mktemp("mtls"), is_mutual=True) as running:
        yield running


def exporter(service: SecureService, wire: str) -> SpanExporter:
    client = service.client
    if wire == "grpc":
        return GrpcExporter(
            f"https://{service.process.grpc_target}",
            credentials=grpc.ssl_channel_credentials(
                service.ca.read_bytes(),
                client.key.read_bytes() if client else None,
                client.certificate.read_bytes() if client else None,
            ),
        )
    return HttpExporter(
        f"https://127.0.0.1:{service.process.ports.http}/v1/traces",
        certificate_file=str(service.ca),
        client_certificate_file=str(client.certificate) if client else None,
        client_key_file=str(client.key) if client else None,
    )


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_an_exporter_sends_over_tls(
    service: SecureService, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # stronger than the exporter's CA
        monkeypatch.delenv(variable, raising=False)
    spans = make_spans()
    sender = exporter(service, wire)

    try:
        assert sender.export(spans) is SpanExportResult.SUCCESS
    finally:
        sender.shutdown()

    for each in spans:
        assert each.context is not None
        trace = service.process.get_trace(f"{each.context.trace_id:032x}")
        assert f"{each.context.span_id:016x}" in {span["span_id"] for span in trace["spans"]}


def test_the_welcome_names_https(service: SecureService) -> None:
    wait_until(lambda: "Ctrl-C" in service.process.stderr, "the welcome")

    for port in service.ports:
        assert f"https://127.0.0.1:{port}" in service.process.stderr
    assert "http://" not in service.process.stderr


def test_each_port_agrees_on_its_protocol(service: SecureService) -> None:
    context = service.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    agreed = []
    for port in service.ports:
        with connected(port, context) as connection:
            agreed.append(connection.selected_alpn_protocol())

    assert agreed == ["h2", "http/1.1", "http/1.1"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_no_port_speaks_tls_1_1(service: SecureService) -> None:
    context = service.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")

    for port in service.ports:
        with (
            pytest.raises(ssl.SSLError, match=r"EOF occurred|protocol version"),
            connected(port, context),
        ):
            pass


def test_no_port_answers_in_clear(service: SecureService) -> None:
    for port in service.ports:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")

            assert b"HTTP/1.1" not in received(connection)


def received(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65_536):
            chunks.append(chunk)
    return b"".join(chunks)


def first_byte(port: int, context: ssl.SSLContext) -> bytes:
    """The first byte that a port says within TLS; nothing if it refuses the client."""
    context.set_alpn_protocols(["h2"])
    try:
        with connected(port, context) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(1)
    except (ssl.SSLError, ConnectionResetError):
        return b""  # TLS 1.3 tells a client that it was refused only when it reads


@pytest.mark.parametrize("shown", ["none", "of another CA"])
def test_a_client_without_the_right_certificate_is_refused(
    mutual: SecureService, shown: str, tmp_path: Path
) -> None:
    context = mutual.context(shows_certificate=False)
    if shown != "none":
        stranger = OTHERS.issue("stranger").write(tmp_path, "stranger")
        context.load_cert_chain(stranger.certificate, stranger.key)

    for port in mutual.ports:
        assert first_byte(port, mutual.context())
        assert not first_byte(port, context)


def test_a_new_certificate_is_shown_to_new_connections_without_a_restart(tmp_path: Path) -> None:
    with secure_service(tmp_path, is_mutual=True) as service, service.channel() as channel:
        export: Any = channel.unary_unary(EXPORT_METHOD)  # on one connection throughout
        body = request(span("kept", trace_id=secrets.token_bytes(16))).SerializeToString()
        export(body, timeout=10)
        before = [service.serial_number(port) for port in service.ports]
        kept = service.process.get("/api/v1/services")

        replace(service.server.key, b"nonsense")
        wait_until(
            lambda: "tls_reload_failed" in service.process.stderr, "a log line", RELOAD_TIMEOUT_S
        )
        assert [service.serial_number(port) for port in service.ports] == before

        renewed = CA.issue("renewed")
        renewed.write(tmp_path, "server")
        wait_until(
            lambda: (
                {service.serial_number(port) for port in service.ports} == {renewed.serial_number}
            ),
            "the new certificate",
            RELOAD_TIMEOUT_S,
        )

        export(body, timeout=10)
        assert service.process.get("/api/v1/services") == kept
        assert "Traceback" not in service.process.stderr


def test_clients_of_a_new_client_ca_are_let_in_without_a_restart(tmp_path: Path) -> None:
    newcomer = OTHERS.issue("newcomer").write(tmp_path, "newcomer")

    with secure_service(tmp_path, is_mutual=True) as service:
        replace(tmp_path / "clients.crt", CLIENTS.pem + OTHERS.pem)
        wait_until(
            lambda: "tls_certificate_reloaded" in service.process.stderr, "it", RELOAD_TIMEOUT_S
        )

        for client in (service.client, newcomer):
            known = SecureService(service.process, tmp_path, service.server, service.ca, client)
            with known.channel() as channel:
                export: Any = channel.unary_unary(EXPORT_METHOD)
                assert export(b"", timeout=10) == b""
            response = httpx.post(
                f"https://127.0.0.1:{service.process.ports.http}/v1/traces",
                headers=PROTOBUF,
                verify=known.context(),
                trust_env=False,
            )
            assert response.status_code == 200


def test_a_stop_does_not_wait_for_idle_tls_connections(tmp_path: Path) -> None:
    with secure_service(tmp_path, is_mutual=False) as service:
        context = service.context()
        with (
            connected(service.process.ports.http, context) as http,
            connected(service.process.ports.query, context) as query,
        ):
            for connection in (http, query):
                connection.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 404"

            assert service.process.stop() < 6


@pytest.mark.parametrize("command", ["start", "collector", "query"])
@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MSGTRACE_TLS_CERT_FILE": "{folder}/server.crt"}, "MSGTRACE_TLS_KEY_FILE"),
        (
            {
                "MSGTRACE_TLS_CERT_FILE": "{folder}/server.crt",
                "MSGTRACE_TLS_KEY_FILE": "{folder}/none.key",
            },
            "MSGTRACE_TLS_KEY_FILE",
        ),
    ],
    ids=["no key", "absent key"],
)
def test_a_certificate_that_cannot_be_used_ends_the_start_before_a_port_opens(
    tmp_path: Path, command: str, environment: dict[str, str], named: str
) -> None:
    CA.issue("server").write(tmp_path, "server")
    given = {name: value.format(folder=tmp_path) for name, value in environment.items()}

    ended = run_to_end(
        command,
        environment={"MSGTRACE_DATABASE_URL": f"sqlite:///{tmp_path / 'msgtrace.db'}"} | given,
    )

    assert ended.returncode != 0
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "msgtrace.db").exists()


def test_a_certificate_that_grpc_cannot_use_is_named(tmp_path: Path) -> None:
    files = CA.issue("server", curve=ec.SECP256K1()).write(tmp_path, "server")

    ended = run_to_end(
        "start",
        environment={
            "MSGTRACE_DATABASE_URL": f"sqlite:///{tmp_path / 'msgtrace.db'}",
            "MSGTRACE_GRPC_PORT": "0",
            "MSGTRACE_TLS_CERT_FILE": str(files.certificate),
            "MSGTRACE_TLS_KEY_FILE": str(files.key),
        },
    )

    assert ended.returncode != 0
    assert "MSGTRACE_TLS_CERT_FILE: gRPC cannot use" in ended.stderr


def test_the_command_line_reads_from_a_secure_service(service: SecureService) -> None:
    arguments = ["list", "--url", f"https://127.0.0.1:{service.process.ports.query}", "--json"]
    trusting = {"SSL_CERT_FILE": str(service.ca)}
    if service.client is not None:
        together = service.folder / "client.pem"
        together.write_bytes(
            service.client.certificate.read_bytes() + service.client.key.read_bytes()
        )
        arguments += ["--client-cert", str(together)]

    assert run_to_end(*arguments, environment=trusting).returncode == 0

    distrusting = run_to_end(*arguments)
    assert distrusting.returncode == 1
    assert "is not trusted" in distrusting.stderr
    assert "SSL_CERT_FILE" in distrusting.stderr


def test_the_command_line_says_that_a_certificate_is_missing(mutual: SecureService) -> None:
    ended = run_to_end(
        "list",
        *("--url", f"https://127.0.0.1:{mutual.process.ports.query}"),
        environment={"SSL_CERT_FILE": str(mutual.ca)},
    )

    assert ended.returncode == 1
    assert "--client-cert" in ended.stderr


@pytest.mark.parametrize("service", [False], ids=["tls"], indirect=True)
def test_the_command_line_knows_from_the_settings_that_the_service_is_secure(
    service: SecureService,
) -> None:
    ended = run_to_end(
        "stats",
        environment={
            "MSGTRACE_PORT": str(service.process.ports.query),
            "MSGTRACE_TLS_CERT_FILE": str(service.server.certificate),
            "MSGTRACE_TLS_KEY_FILE": str(service.server.key),
            "SSL_CERT_FILE": str(service.ca),
        },
    )

    assert ended.returncode == 0, ended.stderr
