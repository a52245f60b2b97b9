"""Ask the query service, over HTTP with the standard library.

Path: cli commands → [cli.client] → api. Every call ends within its time limit, reads a bounded
reply and fails with one sentence (QueryServiceError, exit code 1).
Not here: what a reply means (`cli.replies`) and how it looks.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from msgtrace.cli.filters import Parameters
from msgtrace.cli.replies import ErrorReply
from msgtrace.cli.text import clean
from msgtrace.model.units import KIB, MIB
from msgtrace.settings.table import Settings

READ_TIMEOUT_S = 60.0  # the service itself ends a read after 30 s unless told otherwise
DELETE_TIMEOUT_S = 600.0  # a deletion goes through every matching span
MAX_REPLY_BYTES = 1024 * MIB

_CHUNK_BYTES = 256 * KIB
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on

Reply = TypeVar("Reply")


class QueryServiceError(click.ClickException):
    """The query service did not give what was asked; the text is one sentence for the terminal."""

    def __init__(self, sentence: str) -> None:
        super().__init__(clean(sentence, max_chars=2_000))


class QueryServiceAway(QueryServiceError):
    """It may give what was asked when it is asked again."""


def local_host(settings: Settings) -> str:
    """Where the ports of these settings are reached from this machine."""
    return _ANY_ADDRESS.get(settings.host, settings.host)


def service_url(settings: Settings) -> str:
    """Where the query service of these settings is reached from this machine."""
    host = local_host(settings)
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """A reply under way. Its chunks raise QueryServiceError, QueryServiceAway if it breaks off."""

    headers: Message
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class QueryService:
    """One query service. url has no trailing slash; timeout_s bounds each call as a whole.

    client_cert: PEM file with a certificate and its key, for a service that requires one.
    """

    url: str
    timeout_s: float
    client_cert: Path | None = None

    def get(self, path: str, parameters: Parameters | None = None) -> bytes:
        """The body of a successful reply. Raises QueryServiceError."""
        return self._call("GET", path, parameters or [])

    def delete(self, path: str, parameters: Parameters | None = None) -> bytes:
        """As `get`; what a call that ran out of time has deleted is unknown."""
        return self._call("DELETE", path, parameters or [])

    @contextlib.contextmanager
    def stream(self, path: str, parameters: Parameters) -> Iterator[StreamedReply]:
        """A successful reply that is read as it comes. Raises QueryServiceError.

        The time limit bounds each wait for more of it, not the whole.
        """
        with self._explained():
            response = self._open(self._request("GET", path, parameters), self.timeout_s)
        with response:
            yield StreamedReply(response.headers, self._chunks(response))

    def decode(self, body: bytes, kind: type[Reply]) -> Reply:
        """The reply as `kind`. Raises QueryServiceError if it is not what the API documents."""
        try:
            return msgspec.json.decode(body, type=kind, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._stranger("its reply is not msgtrace's JSON") from error

    def _call(self, method: str, path: str, parameters: Parameters) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        request = self._request(method, path, parameters)
        with self._explained(), self._open(request, self.timeout_s) as response:
            body = _read_body(response, deadline)
            if response.length:
                raise http.client.IncompleteRead(body, response.length)
            return body

    def _request(self, method: str, path: str, parameters: Parameters) -> urllib.request.Request:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return urllib.request.Request(  # noqa: S310 - service_options takes http and https only
            f"{self.url}{path}{query}",
            method=method,
            headers={"Accept": "application/json", "User-Agent": "msgtrace"},
        )

    def _open(self, request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
        deadline = time.monotonic() + timeout_s
        opener = build_opener(self.url, self.client_cert)
        try:
            response: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, _read_body(error, deadline)) from error
        return response

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            with self._explained():
                chunk = response.read1(_CHUNK_BYTES)
                if not chunk and response.length:
                    raise http.client.IncompleteRead(chunk, response.length)
            if not chunk:
                return
            yield chunk

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Every error of an exchange as a QueryServiceError."""
        try:
            yield
        except TimeoutError as error:
            raise self._too_slow() from error
        except urllib.error.URLError as error:
            raise self._explain(error) from error
        except http.client.IncompleteRead as error:
            raise QueryServiceAway(f"the reply of {self.url} broke off") from error
        except http.client.RemoteDisconnected as error:
            raise self._hung_up() from error
        except http.client.HTTPException as error:
            raise self._stranger("its reply is not HTTP that can be read") from error
        except (OSError, ValueError) as error:
            raise self._absent(error) from error

    def _refusal(self, status: int, body: bytes) -> QueryServiceError:
        kind = (
            QueryServiceAway if status == http.HTTPStatus.SERVICE_UNAVAILABLE else QueryServiceError
        )
        try:
            return kind(msgspec.json.decode(body, type=ErrorReply).detail)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._stranger(f"it replied with status {status}")

    def _explain(self, error: urllib.error.URLError) -> QueryServiceError:
        if isinstance(error.reason, TimeoutError):
            return self._too_slow()
        return self._absent(error.reason)

    def _distrust(self, error: ssl.SSLError) -> QueryServiceError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return QueryServiceError(
                f"the certificate of {self.url} is not trusted ({error.verify_message});"
                " name its CA's file with the variable SSL_CERT_FILE"
            )
        return QueryServiceError(
            f"no TLS with {self.url} ({(error.reason or str(error)).replace('_', ' ').lower()});"
            " if it requires a certificate, give one with --client-cert"
        )

    def _absent(self, reason: object) -> QueryServiceError:
        if isinstance(reason, ssl.SSLError):
            return self._distrust(reason)
        said = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        return QueryServiceAway(
            f"no msgtrace query service at {self.url} ({said[:1].lower()}{said[1:]});"
            " start one with `msgtrace start` or give --url"
        )

    def _hung_up(self) -> QueryServiceError:
        is_secure = self.url.startswith("https:")
        cause = (
            "it requires a certificate, give one with --client-cert"
            if is_secure
            else "it speaks TLS, write https:// in --url"
        )
        return QueryServiceAway(f"{self.url} closed the connection without a reply; if {cause}")

    def _too_slow(self) -> QueryServiceError:
        return QueryServiceAway(
            f"the query service at {self.url} did not answer within {self.timeout_s:g} s;"
            " narrow the question or give it longer with --timeout"
        )

    def _stranger(self, observation: str) -> QueryServiceError:
        return QueryServiceError(
            f"what answers at {self.url} is not a msgtrace query service: {observation};"
            " give its address with --url"
        )


def build_opener(url: str, client_cert: Path | None) -> urllib.request.OpenerDirector:
    """What opens `url`: past proxies on this machine, with the certificate if there is one.

    Raises QueryServiceError for a file that holds none.
    """
    handlers: list[urllib.request.BaseHandler] = []
    if _is_loopback(urllib.parse.urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    if url.startswith("https:"):
        context = ssl.create_default_context()  # trusts SSL_CERT_FILE, or what the system trusts
        if client_cert is not None:
            try:
                context.load_cert_chain(client_cert)
            except OSError as error:
                raise QueryServiceError(
                    f"{client_cert} is no PEM file with a certificate and its key"
                ) from error
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def _read_body(
    response: http.client.HTTPResponse | urllib.error.HTTPError, deadline: float
) -> bytes:
    """The whole body.

    Raises TimeoutError after `deadline` (monotonic), QueryServiceError above MAX_REPLY_BYTES.
    """
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise QueryServiceError(f"the reply is larger than {MAX_REPLY_BYTES // MIB} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
