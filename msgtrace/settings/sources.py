"""Where settings come from, and the only reader of the environment.

Flags win over the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from msgtrace.errors import InvalidSetting
from msgtrace.settings.passwords import mask_password, with_password
from msgtrace.settings.table import NATIVE_PACKAGE, PREFIX, Settings, flag_name, variable_name

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


def read_settings(
    flags: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> Settings:
    """Settings from flags, the environment, the TOML file and the defaults.

    flags: by field, None for one that was not given.
    config_file: defaults to the file named by MSGTRACE_CONFIG_FILE. Raises InvalidSetting, naming
    the variable.
    """
    values, _ = _collect(flags or {}, config_file)
    return _build(values)


def explain_settings(
    flags: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> list[SettingRow]:
    """Every setting with its value and where it came from."""
    values, sources = _collect(flags or {}, config_file)
    settings, defaults = _build(values), Settings()
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
    known = {each.name.upper(): variable_name(each.name) for each in dataclasses.fields(Settings)}
    known[CONFIG_FILE_VARIABLE.removeprefix(PREFIX)] = CONFIG_FILE_VARIABLE
    strangers = [
        name
        for name in os.environ
        if name.startswith(PREFIX)
        and name not in known.values()
        and name not in SDK_VARIABLES
        and not name.startswith(PREFIX + "TEST_")
    ]
    # Without the prefix, which makes all of them look alike.
    likely = {
        name: difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
        for name in sorted(strangers)
    }
    return {name: known[found[0]] if found else None for name, found in likely.items()}


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


def _build(values: dict[str, Any]) -> Settings:
    settings = Settings(**values)
    if not settings.database_password_file:
        return settings
    url = with_password(settings.database_url, Path(settings.database_password_file))
    return dataclasses.replace(settings, database_url=url)


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
    if isinstance(given, str):
        is_list = kind == tuple[str, ...]
        given = list(filter(None, map(str.strip, given.split(",")))) if is_list else given.strip()
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSetting(variable, f"must be {_WANTED[kind]}, not {given!r}") from error


_WANTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple[str, ...]: "a list of texts",
}


def _show(name: str, value: Any) -> str:
    if name == "database_url":
        return mask_password(value)
    if name == "decoder" and value == "auto":
        return f"auto ({'python' if find_spec(NATIVE_PACKAGE) is None else 'native'})"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
