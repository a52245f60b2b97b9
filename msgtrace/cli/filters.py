"""The filters of `list`, `stats` and `clear`: flags in, parameters of the query API out.

Path: command line → [cli.filters] → cli.client → api. The API checks the values; checked here is
what only a person at a terminal writes: ages, local times, key=value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from msgtrace.model.units import parse_time_ns, rfc3339

Parameters = list[tuple[str, str]]
"""Query parameters in order; a name may repeat."""

_AGE = re.compile(r"(?:\d{1,9}[smhdw])+")
_AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_FLAGS = {
    "service_name": "--service",
    "name": "--name",
    "workflow_name": "--workflow",
    "session_id": "--session",
    "user_id": "--user",
    "model": "--model",
    "tool": "--tool",
    "min_tokens": "--min-tokens",
    "min_cost": "--min-cost",
    "has_errors": "--errors",
    "min_duration_ms": "--min-duration",
    "max_duration_ms": "--max-duration",
    "start": "--start",
    "end": "--end",
    "attr": "--attr",
    "q": "--search",
}
"""API parameter → flag."""


def _read_moment(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """RFC 3339 for the API from RFC 3339, Unix nanoseconds, or a local date or time."""
    if text is None:
        return None
    try:
        return rfc3339(parse_time_ns(text))
    except ValueError:
        return _read_local_moment(text)


def _read_local_moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
        return rfc3339(parse_time_ns(moment.isoformat()))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is not a time such as 2026-03-01T12:00:00Z, '2026-03-01 12:00' (local)"
            " or 2026-03-01."
        ) from error


def read_age(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A callback of click: the moment that long ago, for the API; before 1970 is 1970."""
    if text is None:
        return None
    if not _AGE.fullmatch(text):
        raise click.BadParameter(f"{text!r} is not an age such as 15m, 2h, 1h30m or 7d.")
    try:
        age = sum((_age_part(part) for part in re.findall(r"\d+[smhdw]", text)), timedelta())
        moment = max(datetime.now(UTC) - age, datetime.fromtimestamp(0, UTC))
    except OverflowError:
        moment = datetime.fromtimestamp(0, UTC)
    return rfc3339(parse_time_ns(moment.isoformat()))


def _age_part(part: str) -> timedelta:
    return timedelta(**{_AGE_UNITS[part[-1]]: int(part[:-1])})


def _read_attributes(
    _: click.Context, __: click.Parameter, pairs: tuple[str, ...]
) -> tuple[str, ...]:
    for pair in pairs:
        key, separator, _value = pair.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{pair!r} is not key=value.")
    return pairs


_MILLISECONDS = click.FloatRange(min=0)

_OPTIONS = (
    click.option("--service", "service_name", help="Any span of the trace is of this service."),
    click.option("--name", help="Any span has exactly this name."),
    click.option("--workflow", "workflow_name", help="Traces of this workflow."),
    click.option("--session", "session_id", help="Traces of this session."),
    click.option("--user", "user_id", help="Traces of this user."),
    click.option("--model", help="Traces that called this model."),
    click.option("--tool", help="Traces that called this tool."),
    click.option(
        "--min-tokens",
        type=click.IntRange(min=0),
        metavar="N",
        help="At least so many tokens, input and output together.",
    ),
    click.option(
        "--min-cost",
        type=click.FloatRange(min=0),
        metavar="COST",
        help="At least so much cost, sent or estimated.",
    ),
    click.option(
        "--errors/--no-errors", "has_errors", default=None, help="Only traces with, without errors."
    ),
    click.option(
        "--min-duration",
        "min_duration_ms",
        type=_MILLISECONDS,
        metavar="MS",
        help="At least so long.",
    ),
    click.option(
        "--max-duration",
        "max_duration_ms",
        type=_MILLISECONDS,
        metavar="MS",
        help="At most so long.",
    ),
    click.option(
        "--since",
        metavar="AGE",
        callback=read_age,
        help="Started within the last AGE: 15m, 2h, 7d.",
    ),
    click.option(
        "--start",
        metavar="TIME",
        callback=_read_moment,
        help="Started at or after TIME: RFC 3339, or local such as '2026-03-01 12:00'.",
    ),
    click.option("--end", metavar="TIME", callback=_read_moment, help="Started before TIME."),
    click.option(
        "--attr",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_read_attributes,
        help="A span or its resource carries the attribute; repeatable, all must hold.",
    ),
    click.option(
        "--search", "q", metavar="TEXT", help="Part of a span's name, status message or attributes."
    ),
)


def filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filters; it receives `filters: Parameters`."""

    @functools.wraps(command)
    def with_filters(*args: Any, **kwargs: Any) -> None:
        since = kwargs.pop("since")
        given = {name: kwargs.pop(name) for name in _FLAGS}
        if since is not None and given["start"] is not None:
            raise click.UsageError("--since and --start cannot be combined.")
        given["start"] = given["start"] or since
        command(*args, filters=_to_parameters(given), **kwargs)

    decorated: Callable[..., None] = with_filters
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _to_parameters(given: dict[str, Any]) -> Parameters:
    parameters: Parameters = []
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        parameters += [(name, _to_text(each)) for each in values if each is not None]
    return parameters


def _to_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_arguments(filters: Parameters) -> list[str]:
    """The command-line arguments that give `filters` again; ages come back as fixed times."""
    arguments: list[str] = []
    for name, value in filters:
        if name == "has_errors":
            arguments.append("--errors" if value == "true" else "--no-errors")
        else:
            arguments += [_FLAGS[name], value]
    return arguments
