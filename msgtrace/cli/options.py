"""Flags made from the Settings table: a new field there is a new flag, with no line to add here.

Path: command line → [cli.options] → settings. Values pass through as given; `settings` converts
and checks them.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from msgtrace.errors import InvalidSetting
from msgtrace.settings.sources import (
    CONFIG_FILE_VARIABLE,
    SettingRow,
    explain_settings,
    read_settings,
)
from msgtrace.settings.table import Settings, flag_name, variable_name

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

FIELDS = {each.name: each for each in dataclasses.fields(Settings)}

_KINDS = typing.get_type_hints(Settings)
_FLAG_TYPES: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT}

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"TOML file with settings.  [env: {CONFIG_FILE_VARIABLE}]",
)


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """What the command line says about settings. flags: by field, None = not given."""

    flags: Mapping[str, Any]
    config_file: Path | None

    def read(self) -> Settings:
        """The settings. Raises InvalidSetting, or click.BadParameter where a flag is at fault."""
        with _blaming_flags(self.flags):
            return read_settings(self.flags, self.config_file)

    def explain(self) -> list[SettingRow]:
        """Every setting with its value and its source. Raises as `read` does."""
        with _blaming_flags(self.flags):
            return explain_settings(self.flags, self.config_file)

    def arguments(self) -> list[str]:
        """The command-line arguments that say the same again."""
        given = [] if self.config_file is None else ["--config", str(self.config_file)]
        for name, value in self.flags.items():
            if isinstance(value, bool):
                given.append(flag_name(name) if value else _off_flag_name(name))
            elif value is not None:
                given += [flag_name(name), str(value)]
        return given


def settings_options(*, only: Collection[str] = (), without: Collection[str] = ()) -> Decorator:
    """Give a command the flags of Settings and `--config`; it receives `source: SettingsSource`.

    only: the fields it takes, all when empty. without: fields that mean nothing to it.
    """
    names = [name for name in FIELDS if name not in without and (not only or name in only)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_source(*args: Any, **kwargs: Any) -> None:
            flags = {name: kwargs.pop(name) for name in names}
            command(*args, source=SettingsSource(flags, kwargs.pop("config_file")), **kwargs)

        decorated: Callable[..., None] = config_option(with_source)
        for name in reversed(names):
            decorated = _flag(name)(decorated)
        return decorated

    return decorate


def _flag(name: str) -> Decorator:
    kind = _KINDS[name]
    declaration = f"{flag_name(name)}/{_off_flag_name(name)}" if kind is bool else flag_name(name)
    return click.option(
        declaration, name, default=None, type=_FLAG_TYPES.get(kind), help=_flag_help(name)
    )


def _off_flag_name(name: str) -> str:
    return flag_name(f"no_{name}")


def _flag_help(name: str) -> str:
    setting = FIELDS[name]
    # A computed default differs from machine to machine; `msgtrace settings` shows it.
    is_fixed = setting.default is not dataclasses.MISSING and setting.default not in ((), "")
    shown = str(setting.default).lower() if _KINDS[name] is bool else setting.default
    default = f"; default: {shown}" if is_fixed else ""
    return f"{setting.metadata['help']}  [env: {variable_name(name)}{default}]"


@contextmanager
def _blaming_flags(flags: Mapping[str, Any]) -> Iterator[None]:
    """Make the InvalidSetting of a value that came as a flag a usage error naming the flag."""
    try:
        yield
    except InvalidSetting as error:
        name = next((each for each in flags if variable_name(each) == error.name), None)
        if name is None or flags[name] is None:
            raise
        problem = str(error).removeprefix(f"{error.name}: ")
        raise click.BadParameter(problem, param_hint=f"'{flag_name(name)}'") from error
