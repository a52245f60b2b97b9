"""What a decoder needs to know beside the bytes: prices for calls that state no cost, redaction.

The composition roots read the rules once, when they start.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from msgtrace.errors import InvalidSetting
from msgtrace.model.prices import BUILT_IN, NO_PRICES, Price, PriceTable
from msgtrace.otlp.redaction import Action, Redaction, parse_rule
from msgtrace.settings.table import NO_PRICES_FILE, Settings, variable_name

LEAST_SECRET_BYTES = 16
"""A shorter secret could be found by trying."""

_SECRET_BYTES_READ = 4_096
"""What is read of its file: a wrong name may lead to an endless one."""

_PRICES_FILE = variable_name("prices_file")

_PerMillion = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRules:
    """What is applied to every request."""

    prices: PriceTable = BUILT_IN
    redaction: Redaction | None = None


RULE_SETTINGS = ("prices_file", "redact", "redact_key_file")
"""The settings that the rules come from."""

DEFAULT_RULES = DecodeRules()


class _PriceRow(msgspec.Struct, forbid_unknown_fields=True):
    input: _PerMillion = 0.0
    output: _PerMillion = 0.0
    cached_input: _PerMillion | None = None
    cache_write: _PerMillion | None = None


class _PriceFile(msgspec.Struct, forbid_unknown_fields=True):
    """What may stand in the file; docs/genai.md explains it. `source` is for people."""

    models: dict[str, _PriceRow]
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "USD"
    as_of: Any = ""
    source: str = ""
    extends_built_in: bool = False


def read_rules(settings: Settings) -> DecodeRules:
    """The rules of these settings. Raises InvalidSetting for a file that cannot be used."""
    return DecodeRules(
        prices=_read_prices(settings.prices_file), redaction=_read_redaction(settings)
    )


def _read_redaction(settings: Settings) -> Redaction | None:
    try:
        rules = [parse_rule(text) for text in settings.redact]
    except ValueError as error:
        raise InvalidSetting(variable_name("redact"), str(error)) from error
    if not rules:
        return None
    hashes = any(rule.action is Action.HASH for rule in rules)
    return Redaction(rules, _read_secret(settings.redact_key_file) if hashes else b"")


def _read_secret(key_file: str) -> bytes:
    variable = variable_name("redact_key_file")
    if not key_file:
        raise InvalidSetting(variable, "must name a file with a secret: a rule hashes values")
    path = Path(key_file).expanduser()
    try:
        with path.open("rb") as file:
            secret = file.read(_SECRET_BYTES_READ).strip()
    except OSError as error:
        raise InvalidSetting(variable, f"cannot read {path}: {error.strerror}") from error
    if len(secret) < LEAST_SECRET_BYTES:
        problem = f"{path} must hold at least {LEAST_SECRET_BYTES} bytes"
        raise InvalidSetting(variable, problem)
    return secret


def _read_prices(prices_file: str) -> PriceTable:
    if not prices_file:
        return BUILT_IN
    if prices_file == NO_PRICES_FILE:
        return NO_PRICES
    path = Path(prices_file).expanduser()
    try:
        content = path.read_text(encoding="utf-8")
        read = msgspec.json.decode(content) if path.suffix == ".json" else tomllib.loads(content)
        given = msgspec.convert(read, _PriceFile)
    except OSError as error:
        raise InvalidSetting(_PRICES_FILE, f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidSetting(_PRICES_FILE, f"{path} is no table of prices: {error}") from error
    if given.extends_built_in and given.currency != BUILT_IN.currency:
        problem = f"{path} extends the built-in prices, which are in {BUILT_IN.currency}"
        raise InvalidSetting(_PRICES_FILE, problem)
    models = {
        name.lower(): Price(
            input=row.input,
            output=row.output,
            cached_input=row.cached_input,
            cache_write=row.cache_write,
        )
        for name, row in given.models.items()
    }
    return PriceTable(
        models=models | _missing(models) if given.extends_built_in else models,
        currency=given.currency,
        as_of=str(given.as_of),
    )


def _missing(models: dict[str, Price]) -> dict[str, Price]:
    return {name: price for name, price in BUILT_IN.models.items() if name not in models}
