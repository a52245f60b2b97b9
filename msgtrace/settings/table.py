"""What an operator sets.

`Settings` is the one table: each field names its environment variable (`MSGTRACE_` + the field in
capitals), its flag (`--` + the field with dashes), its key in the TOML file, its default and its
meaning. Flags win over the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NoReturn

import platformdirs

from msgtrace.errors import InvalidSetting
from msgtrace.model.units import MIB, NS_PER_S, parse_age_ns

PREFIX = "MSGTRACE_"
OTHER_SIGNALS = ("refuse", "discard")
NO_SPILL = "off"
DECODERS = ("auto", "python", "native")
NATIVE_PACKAGE = "msgtrace_native"
NO_RETENTION = "off"
LEAST_RETENTION_S = 3_600.0
LEAST_DATABASE_BYTES = 16 * MIB
"""Less would delete what has just come in."""
NO_PRICES_FILE = "off"
LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

_PORTS = (0, 65_535)
"""0 takes a free one."""
_BYTES = (1, 2**40)
_SECONDS = (0.001, 86_400.0)
_MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer names."""


def default_database_url() -> str:
    """A SQLite file in the user's data folder."""
    return f"sqlite:///{platformdirs.user_data_path('msgtrace') / 'msgtrace.db'}"


def default_spill_dir() -> str:
    """A folder in the user's data folder."""
    return str(platformdirs.user_data_path("msgtrace") / "spill")


def _setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    valid: tuple[float, float] | None = None,
) -> Any:
    """A field. choices: the texts it may be; valid: its least and its greatest value."""
    metadata = {"help": help, "choices": choices, "valid": valid}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Raises InvalidSetting for a value that cannot be used."""

    database_url: str = _setting(
        default_database_url,
        "Where traces are kept: sqlite:///PATH or postgresql://USER@HOST/DATABASE.",
    )
    database_password_file: str = _setting(
        "", "File with the password of PostgreSQL, for a URL without one; read at the start."
    )
    database_schema: str = _setting(
        "",
        "Schema of PostgreSQL that holds the tables, made if absent; the user's own by default.",
    )
    database_writers: int = _setting(
        2, "Connections to PostgreSQL that a process writes with.", valid=(1, 64)
    )
    database_readers: int = _setting(
        8, "Connections to PostgreSQL that a process reads with.", valid=(1, 256)
    )
    host: str = _setting("127.0.0.1", "Address that all ports listen on.")
    grpc_port: int = _setting(4317, "Port of OTLP/gRPC.", valid=_PORTS)
    http_port: int = _setting(4318, "Port of OTLP/HTTP.", valid=_PORTS)
    port: int = _setting(4321, "Port of the query service.", valid=_PORTS)
    workers: int = _setting(
        1,
        "Collector processes that share the ports; more than one needs PostgreSQL, and Linux.",
        valid=(1, 64),
    )
    tls_cert_file: str = _setting(
        "", "PEM file with the certificate of all ports and its chain; plain ports without it."
    )
    tls_key_file: str = _setting("", "PEM file with the certificate's key, without a passphrase.")
    tls_client_ca_file: str = _setting(
        "", "PEM file with the CAs of which clients must show a certificate; none by default."
    )
    max_request_bytes: int = _setting(
        64 * MIB,
        "Largest export request accepted, before and after inflating, in bytes.",
        valid=_BYTES,
    )
    max_queued_bytes: int = _setting(
        64 * MIB,
        "Request bytes that may wait for the database; beyond it senders are told to retry.",
        valid=_BYTES,
    )
    max_batch_bytes: int = _setting(
        8 * MIB, "Request bytes that one database transaction takes at most.", valid=_BYTES
    )
    max_inflight_bytes: int = _setting(
        80 * MIB,
        "Bytes that all requests under way may hold; beyond it senders are told to retry.",
        valid=_BYTES,
    )
    spill_dir: str = _setting(
        default_spill_dir,
        "Folder where requests wait while PostgreSQL is away; off for none. SQLite needs none.",
    )
    max_spill_bytes: int = _setting(
        1024 * MIB,
        "Request bytes that may wait in the spill; beyond it senders are told to retry.",
        valid=_BYTES,
    )
    max_dead_letter_bytes: int = _setting(
        256 * MIB,
        "Bytes of requests kept because the database refuses spans of theirs; 0 keeps none.",
        valid=(0, 2**40),
    )
    decoder: str = _setting(
        "auto",
        "What decodes requests: native (needs the extra msgtrace[native]), python, or auto: "
        "native if it is installed.",
        choices=DECODERS,
    )
    retention: str = _setting(
        NO_RETENTION,
        "How old spans may become: 36h, 30d, 8w; off keeps them. PostgreSQL deletes whole days.",
    )
    max_database_bytes: int = _setting(
        0,
        "Bytes of traces beyond which the oldest are deleted; 0 for no limit. PostgreSQL deletes"
        " whole days, never today.",
        valid=(0, 2**50),
    )
    retention_interval_s: float = _setting(
        60.0,
        "How often a collector looks for what is to be deleted, in seconds.",
        valid=_SECONDS,
    )
    prices_file: str = _setting(
        "",
        "TOML or JSON file with the prices of models, for calls that state no cost; off for no"
        " estimates. A small table is built in.",
    )
    redact: tuple[str, ...] = _setting(
        (),
        "Rules, separated by commas, for values that must not be stored: ACTION KEY or ACTION KEY"
        " in SERVICE, such as: drop gen_ai.*.messages, hash user.id in shop-*. The first that"
        " matches decides; actions are keep, drop and hash.",
    )
    redact_key_file: str = _setting(
        "", "File with the key that hashes of redacted values are made with."
    )
    other_signals: str = _setting(
        "refuse",
        "What metrics, logs and profiles get: refuse, or discard (accepted, reported as rejected).",
        choices=OTHER_SIGNALS,
    )
    auto_migrate: bool = _setting(
        True,
        "Apply schema migrations at start; off for operators who run `msgtrace-admin migrate`.",
    )
    connect_timeout_s: float = _setting(
        30.0,
        "How long a start waits for the database before it gives up, in seconds.",
        valid=_SECONDS,
    )
    query_timeout_s: float = _setting(
        30.0, "How long one read may run, in seconds.", valid=_SECONDS
    )
    otlp_cors_origins: tuple[str, ...] = _setting(
        (),
        "Origins whose pages may export over OTLP/HTTP, separated by commas; none by default.",
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        "Origins whose pages may call the query service, separated by commas; none by default.",
    )
    log_level: str = _setting(
        "info", "Least level that is logged: debug, info, warning or error.", choices=LOG_LEVELS
    )
    log_format: str = _setting("console", "Form of the log: console or json.", choices=LOG_FORMATS)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value, choices = getattr(self, each.name), each.metadata["choices"]
            if choices and value not in choices:
                self._refuse(each.name, f"must be one of {', '.join(choices)}")
            if valid := each.metadata["valid"]:
                least, greatest = valid
                if not least <= value <= greatest:
                    self._refuse(each.name, f"must be {least} to {greatest}")
        if not self.host:
            self._refuse("host", "must not be empty")
        self._check_retention()
        self._require_schema_name()
        self._require_together("tls_cert_file", "tls_key_file")
        self._require_together("tls_key_file", "tls_cert_file")
        self._require_together("tls_client_ca_file", "tls_cert_file")

    @property
    def retention_s(self) -> float | None:
        """How old spans may become, None for ever."""
        if self.retention == NO_RETENTION:
            return None
        return parse_age_ns(self.retention) / NS_PER_S

    def _check_retention(self) -> None:
        try:
            age_s = self.retention_s
        except ValueError:
            self._refuse("retention", "must be off or an age such as 36h, 30d or 8w")
        if age_s is not None and age_s < LEAST_RETENTION_S:
            self._refuse("retention", "must be at least 1h")
        if 0 < self.max_database_bytes < LEAST_DATABASE_BYTES:
            self._refuse("max_database_bytes", f"must be 0 or at least {LEAST_DATABASE_BYTES}")

    def _require_schema_name(self) -> None:
        name = self.database_schema
        if name.startswith("pg_") or "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
            problem = f"must be at most {_MAX_NAME_BYTES} bytes long and must not begin with pg_"
            self._refuse("database_schema", problem)

    def _require_together(self, name: str, other: str) -> None:
        if getattr(self, name) and not getattr(self, other):
            problem = f"must be set, as {variable_name(name)} is"
            raise InvalidSetting(variable_name(other), problem)

    def _refuse(self, name: str, problem: str) -> NoReturn:
        raise InvalidSetting(variable_name(name), f"{problem}, not {getattr(self, name)!r}")


def variable_name(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")
