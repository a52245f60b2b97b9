"""docs/settings.md says what msgtrace.settings does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from msgtrace.settings.sources import SDK_VARIABLES
from msgtrace.settings.table import Settings, variable_name
from tests.project.render_settings import render

ROOT = Path(__file__).parents[2]
SETTINGS = [pytest.param(each, id=each.name) for each in dataclasses.fields(Settings)]


def test_the_settings_page_is_fresh() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()

    assert page == render(), "docs/settings.md is stale: run `make docs`"


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_a_sentence_of_help(setting: dataclasses.Field[object]) -> None:
    assert setting.metadata["help"].endswith(".")


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_takes_a_variable_of_the_sdk(setting: dataclasses.Field[object]) -> None:
    assert variable_name(setting.name) not in SDK_VARIABLES
