"""What tokens cost, for model calls whose cost nobody sent.

An estimate: list prices of the day of the table, without batch discounts, long-context surcharges
or taxes. Users replace the table by a file (`otlp.rules` reads it).
`BUILT_IN` is in US dollars for a million tokens. Source: the vendors' price pages as collected in
BerriAI/litellm, model_prices_and_context_window.json, state of 2026-07-24.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_PER = 1_000_000

_RELEASE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|latest)(-v\d+(:\d+)?)?$")
"""What names one release of a model: a date, a short number, `latest`; a Bedrock version."""

_MAX_KNOWN = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Of one model call. input includes cached and cache_write; output includes reasoning."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """For a million tokens. A cached or written token costs as any other where nothing is said."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None

    def of(self, tokens: Tokens) -> float:
        """What the tokens cost.

        Some senders do not count cached tokens as input; there are then more of them than input.
        """
        special = tokens.cached + tokens.cache_write
        plain = tokens.input - special if special <= tokens.input else tokens.input
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        return (
            plain * self.input
            + tokens.cached * cached
            + tokens.cache_write * written
            + tokens.output * self.output
        ) / _PER


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Prices by model. A name may be a pattern such as `my-model-*`; plain names go first.

    as_of: the day of the prices, as text. currency: three capitals; only costs in it are summed.
    """

    models: Mapping[str, Price]
    currency: str = "USD"
    as_of: str = ""
    _known: dict[str, Price | None] = field(default_factory=dict, compare=False, repr=False)

    def estimate(self, model: str | None, tokens: Tokens) -> float | None:
        """What a call of the model costs, None if the table does not know it.

        A model is known by its whole name, by its name without a path before it
        (`openai/gpt-5`), or without what names a release of it (`gpt-5-2025-08-07`).
        """
        if model is None:
            return None
        if model not in self._known:
            if len(self._known) >= _MAX_KNOWN:  # names are made up by senders
                self._known.clear()
            self._known[model] = self._find(model.lower())
        price = self._known[model]
        return None if price is None else price.of(tokens)

    def _find(self, model: str) -> Price | None:
        short = model.rpartition("/")[2]
        names = (model, short, _RELEASE.sub("", short))
        for name in names:
            if name in self.models:
                return self.models[name]
        for pattern, price in self.models.items():
            if any(fnmatch.fnmatchcase(name, pattern) for name in names):
                return price
        return None


NO_PRICES = PriceTable(models={})
"""Estimates nothing."""

_Row = tuple[float, float | None, float | None, float]
"""(input, cached input, cache write, output)."""

_ROWS: dict[str, _Row] = {
    "claude-haiku-4-5": (1, 0.1, 1.25, 5),
    "claude-opus-4-1": (15, 1.5, 18.75, 75),
    "claude-opus-4-5": (5, 0.5, 6.25, 25),
    "claude-opus-4-6": (5, 0.5, 6.25, 25),
    "claude-opus-4-7": (5, 0.5, 6.25, 25),
    "claude-opus-4-8": (5, 0.5, 6.25, 25),
    "claude-opus-5": (5, 0.5, 6.25, 25),
    "claude-sonnet-4-5": (3, 0.3, 3.75, 15),
    "claude-sonnet-4-6": (3, 0.3, 3.75, 15),
    "claude-sonnet-5": (2, 0.2, 2.5, 10),
    "deepseek-chat": (0.28, 0.028, None, 0.42),
    "deepseek-reasoner": (0.28, 0.028, None, 0.42),
    "gemini-2.5-flash": (0.3, 0.03, None, 2.5),
    "gemini-2.5-flash-lite": (0.1, 0.01, None, 0.4),
    "gemini-2.5-pro": (1.25, 0.125, None, 10),
    "gemini-3-flash": (0.5, 0.05, None, 3),
    "gemini-3.1-flash-lite": (0.25, 0.025, None, 1.5),
    "gemini-3.5-flash": (1.5, 0.15, None, 9),
    "gpt-4.1": (2, 0.5, None, 8),
    "gpt-4.1-mini": (0.4, 0.1, None, 1.6),
    "gpt-4.1-nano": (0.1, 0.025, None, 0.4),
    "gpt-4o": (2.5, 1.25, None, 10),
    "gpt-4o-mini": (0.15, 0.075, None, 0.6),
    "gpt-5": (1.25, 0.125, None, 10),
    "gpt-5-mini": (0.25, 0.025, None, 2),
    "gpt-5-nano": (0.05, 0.005, None, 0.4),
    "gpt-5.1": (1.25, 0.125, None, 10),
    "gpt-5.2": (1.75, 0.175, None, 14),
    "gpt-5.4": (2.5, 0.25, None, 15),
    "gpt-5.4-mini": (0.75, 0.075, None, 4.5),
    "gpt-5.4-nano": (0.2, 0.02, None, 1.25),
    "gpt-5.5": (5, 0.5, None, 30),
    "o3": (2, 0.5, None, 8),
    "o3-mini": (1.1, 0.55, None, 4.4),
    "o4-mini": (1.1, 0.275, None, 4.4),
    "text-embedding-3-large": (0.13, None, None, 0),
    "text-embedding-3-small": (0.02, None, None, 0),
}

BUILT_IN = PriceTable(
    models={
        name: Price(input=given, cached_input=cached, cache_write=written, output=made)
        for name, (given, cached, written, made) in _ROWS.items()
    },
    as_of="2026-07-24",
)
