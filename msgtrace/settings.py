"""What an operator sets, and the only reader of the environment.

`Settings` is the one table: each field names its environment variable (`MSGTRACE_` + the field in
capitals), its flag (`--` + the field with dashes), its key in the TOML file, its default and its
meaning. Flags win over the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from msgtrace.errors import InvalidSetting
from msgtrace.model.units import MIB

PREFIX = "MSGTRACE_"
CONFIG_FILE_VARIABLE = "MSGTRACE_CONFIG_FILE"

SDK_VARIABLES = frozenset(
    PREFIX + name
    for name in (
        "EXPORTER",
        "OTLP_ENDPOINT",
        "SERVICE_NAME",
        "TELEMETRY_ENABLED",
        "CAPTURE_PLATFORM",
        "SAMPLING_RATIO",
        "MAX_RETRIES",
    )
)
"""Variables of msgtrace-sdk, which shares the prefix: never ours, never warned about."""

LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def default_database_url() -> str:
    """A SQLite file in the user's data folder."""
    return f"sqlite:///{platformdirs.user_data_path('msgtrace') / 'msgtrace.db'}"


def _setting(default: Any, help: str) -> Any:
    metadata = {"help": help}
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
    host: str = _setting("127.0.0.1", "Address that all ports listen on.")
    grpc_port: int = _setting(4317, "Port of OTLP/gRPC.")
    http_port: int = _setting(4318, "Port of OTLP/HTTP.")
    port: int = _setting(4321, "Port of the query service.")
    max_request_bytes: int = _setting(
        64 * MIB, "Largest export request accepted, before and after inflating, in bytes."
    )
    max_queued_bytes: int = _setting(
        64 * MIB,
        "Request bytes that may wait for the database; beyond it senders are told to retry.",
    )
    max_batch_bytes: int = _setting(
        8 * MIB, "Request bytes that one database transaction takes at most."
    )
    auto_migrate: bool = _setting(
        True,
        "Apply schema migrations at start; off for operators who run `msgtrace-admin migrate`.",
    )
    connect_timeout_s: float = _setting(
        30.0, "How long a start waits for the database before it gives up, in seconds."
    )
    query_timeout_s: float = _setting(30.0, "How long one read may run, in seconds.")
    cors_origins: tuple[str, ...] = _setting(
        (),
        "Origins whose pages may call the query service, separated by commas; none by default.",
    )
    log_level: str = _setting("info", "Least level that is logged: debug, info, warning or error.")
    log_format: str = _setting("console", "Form of the log: console or json.")

    def __post_init__(self) -> None:
        for name in ("grpc_port", "http_port", "port"):
            self._check(
                name,
                0 <= getattr(self, name) <= 65_535,
                "must be a port, 0 to 65535 (0 takes a free one)",
            )
        for name in (
            "max_request_bytes",
            "max_queued_bytes",
            "max_batch_bytes",
            "connect_timeout_s",
            "query_timeout_s",
        ):
            self._check(name, getattr(self, name) > 0, "must be greater than 0")
        self._check(
            "log_level", self.log_level in LOG_LEVELS, f"must be one of {', '.join(LOG_LEVELS)}"
        )
        self._check(
            "log_format", self.log_format in LOG_FORMATS, f"must be one of {', '.join(LOG_FORMATS)}"
        )
        self._check("host", bool(self.host), "must not be empty")

    def _check(self, name: str, is_valid: bool, problem: str) -> None:
        if not is_valid:
            raise InvalidSetting(variable_name(name), f"{problem}, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of `msgtrace settings`.

    `source` is flag, environment, file or default; no value holds a password.
    """

    variable: str
    flag: str
    value: str
    default: str
    source: str
    help: str


def variable_name(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def read_settings(
    flags: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> Settings:
    """Settings from flags, the environment, the TOML file and the defaults.

    flags: by field, None for one that was not given.
    config_file: defaults to the file named by MSGTRACE_CONFIG_FILE. Raises InvalidSetting, naming
    the variable.
    """
    values, _ = _collect(flags or {}, config_file)
    return Settings(**values)


def explain_settings(
    flags: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> list[SettingRow]:
    """Every setting with its value and where it came from."""
    values, sources = _collect(flags or {}, config_file)
    settings, defaults = Settings(**values), Settings()
    return [
        SettingRow(
            variable=variable_name(each.name),
            flag=flag_name(each.name),
            value=_show(each.name, getattr(settings, each.name)),
            default=_show(each.name, getattr(defaults, each.name)),
            source=sources.get(each.name, "default"),
            help=each.metadata["help"],
        )
        for each in dataclasses.fields(Settings)
    ]


def unknown_variables() -> dict[str, str | None]:
    """MSGTRACE_* variables in the environment that nothing reads, each with the likely one."""
    known = [variable_name(each.name) for each in dataclasses.fields(Settings)] + [
        CONFIG_FILE_VARIABLE
    ]
    strangers = [
        name
        for name in os.environ
        if name.startswith(PREFIX)
        and name not in known
        and name not in SDK_VARIABLES
        and not name.startswith(PREFIX + "TEST_")
    ]
    return {
        name: next(iter(difflib.get_close_matches(name, known, n=1)), None)
        for name in sorted(strangers)
    }


def mask_password(url: str) -> str:
    """The URL with every password in it replaced by ***."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    if at and ":" in credentials:
        authority = f"{credentials.partition(':')[0]}:***@{host}"
    path, question, query = path.partition("?")
    pairs = ["password=***" if pair.startswith("password=") else pair for pair in query.split("&")]
    return f"{scheme}://{authority}{slash}{path}{question}{'&'.join(pairs)}"


def _collect(
    flags: Mapping[str, Any], config_file: Path | None
) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    from_file = _read_file(config_file)
    kinds = typing.get_type_hints(Settings)
    for each in dataclasses.fields(Settings):
        variable = variable_name(each.name)
        for source, given in (
            ("flag", flags.get(each.name)),
            ("environment", os.environ.get(variable)),
            ("file", from_file.get(each.name)),
        ):
            if given is not None and given != "":
                values[each.name] = _convert(variable, kinds[each.name], given)
                sources[each.name] = source
                break
    return values, sources


def _read_file(config_file: Path | None) -> dict[str, Any]:
    named = os.environ.get(CONFIG_FILE_VARIABLE)
    path = config_file or (Path(named) if named else None)
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidSetting(
            CONFIG_FILE_VARIABLE, f"cannot read {path}: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(CONFIG_FILE_VARIABLE, f"{path} is not TOML: {error}") from error
    unknown = content.keys() - {each.name for each in dataclasses.fields(Settings)}
    if unknown:
        raise InvalidSetting(
            CONFIG_FILE_VARIABLE, f"{path} has unknown settings: {', '.join(sorted(unknown))}"
        )
    return content


def _convert(variable: str, kind: Any, given: Any) -> Any:
    if kind == tuple[str, ...]:
        items = given.split(",") if isinstance(given, str) else given
        return tuple(str(item).strip() for item in items if str(item).strip())
    try:
        return msgspec.convert(
            given.strip() if isinstance(given, str) else given, kind, strict=False
        )
    except msgspec.ValidationError as error:
        raise InvalidSetting(variable, f"must be {_WANTED[kind]}, not {given!r}") from error


_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _show(name: str, value: Any) -> str:
    if name == "database_url":
        return mask_password(value)
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
