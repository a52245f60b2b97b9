from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from msgtrace.errors import InvalidSetting
from msgtrace.settings.table import Settings
from msgtrace.tls import ServerTls, open_tls
from tests.certificates import Authority, CertificateFiles, replace

POLL_S = 0.02

CA = Authority("servers' CA")
CLIENTS = Authority("clients' CA")
OTHERS = Authority("CA of somebody else")
SERVER = CA.issue("server")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    files = SERVER.write(tmp_path, "server")
    return Settings(tls_cert_file=str(files.certificate), tls_key_file=str(files.key))


@pytest.fixture
def mutual(settings: Settings, tmp_path: Path) -> Settings:
    """Clients must show a certificate of CLIENTS."""
    path = tmp_path / "clients.crt"
    path.write_bytes(CLIENTS.pem)
    return dataclasses.replace(settings, tls_client_ca_file=str(path))


@pytest.fixture
def client_files(tmp_path: Path) -> CertificateFiles:
    return CLIENTS.issue("client").write(tmp_path, "client")


def client_context(files: CertificateFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=CA.pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


def shake_hands(tls: ServerTls, client: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end of a connection. Raises ssl.SSLError if either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        tls.http_context.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0]


def serial_number(tls: ServerTls) -> int:
    certificate = shake_hands(tls, client_context()).getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


async def wait_until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(POLL_S)


def events(caplog: pytest.LogCaptureFixture, name: str) -> int:
    return [record.getMessage() for record in caplog.records].count(name)


async def test_without_a_certificate_there_is_no_tls() -> None:
    async with open_tls(Settings()) as tls:
        assert tls is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("tls_cert_file", "MSGTRACE_TLS_KEY_FILE"),
        ("tls_key_file", "MSGTRACE_TLS_CERT_FILE"),
        ("tls_client_ca_file", "MSGTRACE_TLS_CERT_FILE"),
    ],
)
def test_a_file_without_the_others_names_the_missing_one(given: str, missing: str) -> None:
    fields: dict[str, Any] = {given: "some.pem"}

    with pytest.raises(InvalidSetting, match=f"^{missing}: must be set") as refused:
        Settings(**fields)

    assert refused.value.name == missing


def file_of(settings: Settings, name: str) -> Path:
    return Path(getattr(settings, name))


@pytest.mark.parametrize("name", ["tls_cert_file", "tls_key_file", "tls_client_ca_file"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read .*: No such file"),
        (b"", "holds no"),
        (b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "holds no"),
    ],
    ids=["absent", "empty", "nonsense"],
)
async def test_a_file_that_cannot_be_used_is_named(
    mutual: Settings, name: str, content: bytes | None, problem: str
) -> None:
    path = file_of(mutual, name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    with pytest.raises(InvalidSetting, match=problem) as refused:
        async with open_tls(mutual):
            pass

    assert refused.value.name == f"MSGTRACE_{name.upper()}"
    assert str(path) in str(refused.value)


async def test_a_folder_in_place_of_a_file_is_named(settings: Settings, tmp_path: Path) -> None:
    wrong = dataclasses.replace(settings, tls_key_file=str(tmp_path))

    with pytest.raises(InvalidSetting, match="MSGTRACE_TLS_KEY_FILE: cannot read"):
        async with open_tls(wrong):
            pass


async def test_a_key_of_another_certificate_is_refused(settings: Settings) -> None:
    file_of(settings, "tls_key_file").write_bytes(CA.issue("another").key)

    with pytest.raises(InvalidSetting, match=r"MSGTRACE_TLS_KEY_FILE: .* is not the key of"):
        async with open_tls(settings):
            pass


async def test_an_encrypted_key_is_refused_and_nobody_is_asked(settings: Settings) -> None:
    locked = CA.issue("locked", passphrase=b"secret")
    file_of(settings, "tls_cert_file").write_bytes(locked.certificate)
    file_of(settings, "tls_key_file").write_bytes(locked.key)

    with pytest.raises(InvalidSetting, match=r"MSGTRACE_TLS_KEY_FILE: .* is encrypted"):
        async with open_tls(settings):
            pass


async def test_one_file_may_hold_certificate_and_key(tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(SERVER.key + SERVER.certificate)

    async with open_tls(Settings(tls_cert_file=str(path), tls_key_file=str(path))) as tls:
        assert tls is not None
        assert serial_number(tls) == SERVER.serial_number


async def test_http_1_is_agreed_on_within_tls(settings: Settings) -> None:
    async with open_tls(settings) as tls:
        assert tls is not None
        agreed = shake_hands(tls, client_context())

    assert agreed.selected_alpn_protocol() == "http/1.1"
    assert agreed.version() == "TLSv1.3"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_2_is_the_least_version(settings: Settings) -> None:
    modern, old = client_context(), client_context()
    modern.maximum_version = ssl.TLSVersion.TLSv1_2
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")

    async with open_tls(settings) as tls:
        assert tls is not None
        assert shake_hands(tls, modern).version() == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match="unsupported protocol"):
            shake_hands(tls, old)


async def test_only_clients_of_the_client_ca_are_let_in(
    mutual: Settings, client_files: CertificateFiles, tmp_path: Path
) -> None:
    stranger = OTHERS.issue("stranger").write(tmp_path, "stranger")

    async with open_tls(mutual) as tls:
        assert tls is not None
        shake_hands(tls, client_context(client_files))
        with pytest.raises(ssl.SSLError, match="did not return a certificate"):
            shake_hands(tls, client_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tls, client_context(stranger))


async def test_new_files_count_for_new_connections(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    renewed = CA.issue("renewed")
    async with open_tls(settings, POLL_S) as tls:
        assert tls is not None
        assert serial_number(tls) == SERVER.serial_number

        renewed.write(tmp_path, "server")
        await wait_until(lambda: serial_number(tls) == renewed.serial_number)

    assert events(caplog, "tls_certificate_reloaded") == 1


async def test_a_client_ca_that_is_replaced_lets_nobody_of_the_old_one_in(
    mutual: Settings, client_files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_tls(mutual, POLL_S) as tls:
        assert tls is not None
        shake_hands(tls, client_context(client_files))

        replace(file_of(mutual, "tls_client_ca_file"), OTHERS.pem)
        await wait_until(lambda: events(caplog, "tls_certificate_reloaded") == 1)

        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tls, client_context(client_files))


@pytest.mark.parametrize("name", ["tls_cert_file", "tls_key_file", "tls_client_ca_file"])
async def test_a_broken_new_file_is_logged_once_and_the_old_one_stays(
    mutual: Settings,
    client_files: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    async with open_tls(mutual, POLL_S) as tls:
        assert tls is not None
        good = file_of(mutual, name).read_bytes()
        replace(file_of(mutual, name), b"nonsense")
        await wait_until(lambda: events(caplog, "tls_reload_failed") == 1)

        shake_hands(tls, client_context(client_files))
        await asyncio.sleep(5 * POLL_S)
        assert events(caplog, "tls_reload_failed") == 1

        replace(file_of(mutual, name), good)
        await asyncio.sleep(5 * POLL_S)
        replace(file_of(mutual, name), b"nonsense")
        await wait_until(lambda: events(caplog, "tls_reload_failed") == 2)


async def test_a_file_that_vanishes_is_logged_and_may_come_back(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renewed = CA.issue("renewed")
    async with open_tls(settings, POLL_S) as tls:
        assert tls is not None
        file_of(settings, "tls_cert_file").unlink()
        await wait_until(lambda: events(caplog, "tls_reload_failed") == 1)
        assert serial_number(tls) == SERVER.serial_number

        renewed.write(tmp_path, "server")
        await wait_until(lambda: serial_number(tls) == renewed.serial_number)
