"""Render docs/settings.md from the settings table. Run by `make docs`; tests/project compares."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import Any

from msgtrace.model.units import MIB
from msgtrace.settings.sources import CONFIG_FILE_VARIABLE, SDK_VARIABLES
from msgtrace.settings.table import Settings, flag_name, variable_name

PAGE = """\
# Settings

Rendered from `msgtrace/settings/table.py` by `make docs`.

Each setting can be given as a flag, as an environment variable or as a key of a TOML file.
A flag wins over the environment, the environment over the file, the file over the default.
`msgtrace settings` shows every value in use and where it came from.
`{config_file}` names the file; its keys are the names in the last column.

| variable | flag | default | meaning | key |
|---|---|---|---|---|
{rows}

Variables of msgtrace-sdk, which shares the prefix, are never read here: {sdk_variables}.
"""


def render() -> str:
    """The whole page; the same on every machine."""
    return PAGE.format(
        config_file=CONFIG_FILE_VARIABLE,
        rows="\n".join(_row(each) for each in dataclasses.fields(Settings)),
        sdk_variables=", ".join(f"`{name}`" for name in sorted(SDK_VARIABLES)),
    )


def _row(setting: dataclasses.Field[Any]) -> str:
    name = setting.name
    cells = [
        f"`{variable_name(name)}`",
        f"`{flag_name(name)}`",
        _default(setting),
        setting.metadata["help"].replace("|", "\\|"),
        f"`{name}`",
    ]
    return f"| {' | '.join(cells)} |"


def _default(setting: dataclasses.Field[Any]) -> str:
    """A default that depends on the machine is described by the docstring of what computes it."""
    if setting.default_factory is not dataclasses.MISSING:
        return (inspect.getdoc(setting.default_factory) or "").rstrip(".")
    value = setting.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if setting.name.endswith("_bytes") and isinstance(value, int) and value % MIB == 0:
        return f"`{value}` ({value // MIB} MiB)"
    shown = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"`{shown}`" if shown else "none"


if __name__ == "__main__":
    sys.stdout.write(render())
