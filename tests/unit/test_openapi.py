"""The API describes itself completely: a route, parameter or field without a text fails here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest

from msgtrace.api import openapi, operations, params
from msgtrace.api.app import create_app, documented_routes
from msgtrace.api.descriptions import FIELDS, PARAMETERS
from msgtrace.api.openapi import Undocumented, build_document
from msgtrace.api.operations import OPERATIONS, Documented
from msgtrace.storage.protocol import Storage

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document(documented_routes())


def fields_of(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (name, field)
        for name, schema in document["components"]["schemas"].items()
        for field in schema["properties"]
    }


def test_every_route_is_described_and_every_described_one_exists() -> None:
    assert set(OPERATIONS) == set(documented_routes())


def test_every_parameter_that_is_taken_is_described_and_no_other() -> None:
    taken = params.FILTER_PARAMETERS | params.PAGE_PARAMETERS | params.EXPORT_PARAMETERS | {"all"}
    listed = {name for operation in OPERATIONS.values() for name in operation.parameters}

    assert taken <= listed
    assert listed == set(PARAMETERS)


def test_every_field_is_described_and_no_description_is_left_over(
    document: dict[str, Any],
) -> None:
    used = {
        f"{struct}.{field}" if f"{struct}.{field}" in FIELDS else field
        for struct, field in fields_of(document)
    }

    assert set(FIELDS) == used


def test_every_text_is_a_sentence(document: dict[str, Any]) -> None:
    texts = [text for _, text in PARAMETERS.values()] + list(FIELDS.values())

    assert [text for text in texts if not re.search(r"[.!?]$", text)] == []


def test_durations_and_times_name_their_unit(document: dict[str, Any]) -> None:
    for _, field in fields_of(document):
        if field.endswith("_ms"):
            assert "millisecond" in FIELDS.get(field, "") + FIELDS.get("PercentilesView.p50", "")
        if field.endswith("_nano"):
            assert "nanoseconds since 1970" in FIELDS[field]


def test_a_route_without_a_description_is_named() -> None:
    with pytest.raises(Undocumented, match="GET /new is not described: add it to OPERATIONS"):
        build_document([("GET", "/new")])


def test_a_parameter_without_a_description_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Documented(summary="New", parameters=("colour",))
    monkeypatch.setattr(openapi, "OPERATIONS", {("GET", "/new"): new})

    with pytest.raises(Undocumented, match="the parameter colour is not described"):
        build_document([("GET", "/new")])


class _NewReply(msgspec.Struct):
    novelty: int


def test_a_field_without_a_description_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Documented(summary="New", reply=_NewReply)
    monkeypatch.setattr(openapi, "OPERATIONS", {("GET", "/new"): new})

    with pytest.raises(Undocumented, match=r"the field _NewReply\.novelty is not described"):
        build_document([("GET", "/new")])


def test_the_page_of_the_api_names_every_parameter_and_field(document: dict[str, Any]) -> None:
    page = API_PAGE.read_text()
    named = set(re.findall(r"[A-Za-z0-9_-]+", page))

    assert {name for name in PARAMETERS if name not in named} == set()
    assert {field for _, field in fields_of(document) if field not in named} == set()
    headers = {name for operation in OPERATIONS.values() for name in operation.headers}
    assert headers <= named


async def get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=create_app(cast(Storage, None)))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        return await client.get(path)


async def test_the_description_is_served(document: dict[str, Any]) -> None:
    served = await get("/openapi.json")

    assert served.headers["content-type"] == "application/json"
    assert served.json() == document


async def test_the_page_needs_nothing_from_elsewhere_and_runs_no_script() -> None:
    served = await get("/docs")

    assert served.headers["content-type"] == "text/html; charset=utf-8"
    assert served.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in served.text
    links = re.findall(r'(?:href|src)="([^"]*)"', served.text)
    assert {link for link in links if not link.startswith("#")} == {"openapi.json"}


async def test_the_page_tells_all_that_the_description_tells(document: dict[str, Any]) -> None:
    page = (await get("/docs")).text

    for path in document["paths"]:
        assert f"<code>{path}</code>" in page
    for name in (*PARAMETERS, *operations.RAW_FIELDS):
        assert f"<code>{name}</code>" in page
    anchors = set(re.findall(r'id="([^"]*)"', page))
    assert {link[1:] for link in re.findall(r'href="(#[^"]*)"', page)} <= anchors
