"""TLS on every port, and new certificates without a restart.

Path: settings → [tls] → collector, query_service → the ports.
The files are compared with what is in use every RELOAD_POLL_S. New ones count for new connections;
files that cannot be used are logged, and the ones in use stay. TLS 1.2 is the least version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import grpc

from msgtrace.errors import InvalidSetting
from msgtrace.settings.table import Settings, variable_name

logger = logging.getLogger(__name__)

RELOAD_POLL_S = 5.0

CERTIFICATE = variable_name("tls_cert_file")
KEY = variable_name("tls_key_file")
CLIENT_CA = variable_name("tls_client_ca_file")

_WEAK_CERTIFICATE = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")
"""OpenSSL's reasons against the certificate; what else it says here is about the key."""


@contextlib.asynccontextmanager
async def open_tls(
    settings: Settings, poll_s: float = RELOAD_POLL_S
) -> AsyncIterator[ServerTls | None]:
    """The TLS of all ports, kept up to date; None if the settings name no certificate.

    Raises InvalidSetting for files that cannot be used.
    """
    if not settings.tls_cert_file:
        yield None
        return
    files = _Files(
        Path(settings.tls_cert_file),
        Path(settings.tls_key_file),
        Path(settings.tls_client_ca_file) if settings.tls_client_ca_file else None,
    )
    tls = ServerTls(files, await asyncio.to_thread(_load, files))
    watching = asyncio.create_task(tls.watch(poll_s), name="watch-certificates")
    try:
        yield tls
    finally:
        watching.cancel()


class ServerTls:
    """One certificate for all ports, and the CA that clients must be certified by, if any."""

    def __init__(self, files: _Files, identity: _Identity) -> None:
        self._files = files
        self._identity = identity
        self.http_context = _LatestContext(identity.context)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials for one gRPC server; it asks before each handshake whether they changed."""
        given = self._identity

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if given is self._identity:
                return None
            given = self._identity
            return given.content.grpc_configuration()

        return grpc.dynamic_ssl_server_credentials(
            given.content.grpc_configuration(),
            fetch,  # type: ignore[arg-type]  # the stub forgets None, which is "no change"
            require_client_authentication=self._files.client_ca is not None,
        )

    async def watch(self, poll_s: float) -> None:
        """Take over new files, forever.

        A problem counts when it is met twice: files that belong together are not replaced at once.
        """
        met, logged = "", ""
        while True:
            await asyncio.sleep(poll_s)
            problem = await asyncio.to_thread(self._reload)
            if problem and problem == met and problem != logged:
                logger.error("tls_reload_failed", extra={"problem": problem})
                logged = problem
            met = problem
            if not problem:
                logged = ""

    def _reload(self) -> str:
        """Take over the files if they changed; return what is wrong with them, if anything."""
        try:
            if self._files.read() == self._identity.content:
                return ""
            identity = _load(self._files)
        except InvalidSetting as error:
            return str(error)
        self._identity = identity
        self.http_context.latest = identity.context
        logger.info("tls_certificate_reloaded")
        return ""


@dataclass(frozen=True, slots=True)
class _Files:
    certificate: Path
    key: Path
    client_ca: Path | None

    def read(self) -> _Content:
        """Raises InvalidSetting."""
        return _Content(
            _read(CERTIFICATE, self.certificate),
            _read(KEY, self.key),
            None if self.client_ca is None else _read(CLIENT_CA, self.client_ca),
        )


@dataclass(frozen=True, slots=True)
class _Content:
    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.client_ca
        )


@dataclass(frozen=True, slots=True)
class _Identity:
    """What the files held at one time, and OpenSSL's view of it."""

    content: _Content
    context: ssl.SSLContext


class _LatestContext(ssl.SSLContext):
    """Starts each connection with the latest context.

    New files in an old context would not do: a client could resume a session that began under the
    old CA.
    """

    latest: ssl.SSLContext

    def __new__(cls, _latest: ssl.SSLContext) -> _LatestContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, latest: ssl.SSLContext) -> None:
        self.latest = latest

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Called by the event loops for each connection."""
        return self.latest.wrap_bio(*args, **kwargs)


def _load(files: _Files) -> _Identity:
    content = files.read()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _require_certificates(CERTIFICATE, files.certificate)
    _load_chain(context, files)
    if files.client_ca is not None:
        _require_certificates(CLIENT_CA, files.client_ca)
        context.load_verify_locations(cafile=files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if files.read() != content:  # the context was read from the files, gRPC gets `content`
        raise InvalidSetting(CERTIFICATE, "the files changed while they were read")
    return _Identity(content, context)


def _load_chain(context: ssl.SSLContext, files: _Files) -> None:
    def refuse_passphrase() -> Never:
        raise InvalidSetting(KEY, f"{files.key} is encrypted; a key without a passphrase is needed")

    try:
        context.load_cert_chain(files.certificate, files.key, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason in _WEAK_CERTIFICATE:
            problem = f"{files.certificate} is refused by OpenSSL: {_said(error)}"
            raise InvalidSetting(CERTIFICATE, problem) from error
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{files.key} is not the key of the certificate in {files.certificate}"
            raise InvalidSetting(KEY, problem) from error
        raise InvalidSetting(KEY, f"{files.key} holds no private key in PEM form") from error


def _require_certificates(variable: str, path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise InvalidSetting(variable, f"{path} holds no certificate in PEM form") from error


def _read(variable: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSetting(variable, f"cannot read {path}: {error.strerror}") from error


def _said(error: ssl.SSLError) -> str:
    return (error.reason or "unknown").replace("_", " ").lower()
