"""What tokens cost by a table of prices, and which file makes such a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msgtrace.errors import InvalidSetting
from msgtrace.model.prices import BUILT_IN, NO_PRICES, Price, PriceTable, Tokens
from msgtrace.otlp.rules import read_rules
from msgtrace.settings.table import Settings

MILLION = Tokens(input=1_000_000)


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        (Tokens(input=1_000_000), 1.0),
        (Tokens(output=1_000_000), 8.0),
        (Tokens(input=1_000_000, cached=500_000), 0.55),
        (Tokens(input=1_000_000, cached=500_000, cache_write=500_000), 0.65),
        # Some senders do not count cached tokens as input.
        (Tokens(input=1_000_000, cached=2_000_000), 1.2),
        (Tokens(), 0.0),
    ],
)
def test_tokens_cost_what_the_price_says(tokens: Tokens, cost: float) -> None:
    price = Price(input=1, output=8, cached_input=0.1, cache_write=1.2)

    assert price.of(tokens) == pytest.approx(cost)


def test_cached_tokens_cost_as_any_other_without_a_price_of_their_own() -> None:
    assert Price(input=1).of(Tokens(input=1_000_000, cached=600_000)) == 1.0


@pytest.mark.parametrize(
    "model",
    [
        "gpt-5",
        "GPT-5",
        "gpt-5-2025-08-07",
        "openai/gpt-5",
        "azure/eu/gpt-5-2025-08-07",
        "gpt-5-latest",
        "gpt-5-20250807",
        "gpt-5@20250807",
        "gpt-5-20250807-v1:0",
    ],
)
def test_a_model_is_found_under_its_names(model: str) -> None:
    assert BUILT_IN.estimate(model, MILLION) == 1.25


@pytest.mark.parametrize("model", [None, "", "gpt-5-tuned", "gpt", "x" * 10_000])
def test_a_model_without_a_price_is_not_estimated(model: str | None) -> None:
    assert BUILT_IN.estimate(model, MILLION) is None


def test_plain_names_go_before_patterns() -> None:
    table = PriceTable(models={"our-*": Price(input=1), "our-best": Price(input=9)})

    assert table.estimate("our-best", MILLION) == 9
    assert table.estimate("our-other", MILLION) == 1


def test_many_made_up_models_do_not_fill_the_memory() -> None:
    table = PriceTable(models={})
    for number in range(5_000):
        table.estimate(f"{number}", MILLION)

    assert len(table._known) <= 1_000


def test_the_built_in_table_tells_its_day() -> None:
    assert BUILT_IN.as_of == "2026-07-24"
    assert BUILT_IN.currency == "USD"
    assert all(price.input or price.output for price in BUILT_IN.models.values())


# Files


def table_of(path: Path | str) -> PriceTable:
    return read_rules(Settings(prices_file=str(path))).prices


def test_a_toml_or_json_file_replaces_the_prices(tmp_path: Path) -> None:
    toml, as_json = tmp_path / "prices.toml", tmp_path / "prices.json"
    toml.write_text(
        'as_of = 2026-11-01\ncurrency = "EUR"\n[models."Our-Model"]\ninput = 2\noutput = 3.5\n'
    )
    as_json.write_text(json.dumps({"models": {"our-model": {"input": 2, "output": 3.5}}}))

    for path in (toml, as_json):
        table = table_of(path)
        assert table.estimate("our-model", Tokens(input=500_000, output=2_000_000)) == 8.0
        assert table.estimate("gpt-5", MILLION) is None
    assert (table_of(toml).currency, table_of(toml).as_of) == ("EUR", "2026-11-01")


def test_a_file_may_extend_the_built_in_prices(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("extends_built_in = true\n[models.gpt-5]\ninput = 7\n")

    assert table_of(path).estimate("gpt-5", MILLION) == 7
    assert table_of(path).estimate("gpt-4o", MILLION) == 2.5


def test_estimates_can_be_switched_off() -> None:
    assert table_of("off") is NO_PRICES
    assert table_of("") is BUILT_IN


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.toml", "models = 1", "no table of prices"),
        ("a.toml", "[models.m]\ninput = -1", "no table of prices"),
        ("a.toml", '[models.m]\ninput = "1"', "no table of prices"),
        ("a.toml", "[models.m]\nprompt = 1", "no table of prices.*prompt"),
        ("a.toml", "not toml", "no table of prices"),
        ("a.json", "{", "no table of prices"),
        ("a.json", '{"models": {}, "currency": "dollar"}', "no table of prices"),
        ("a.json", '{"models": {}, "currency": "EUR", "extends_built_in": true}', "in USD"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_text(content)

    with pytest.raises(InvalidSetting, match=f"MSGTRACE_PRICES_FILE: .*{name}.*{problem}"):
        table_of(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"MSGTRACE_PRICES_FILE: cannot read .*none"):
        table_of(tmp_path / "none")
