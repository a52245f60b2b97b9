from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import cast

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from msgtrace.api.app import create_app, documented_routes
from msgtrace.storage.protocol import Storage

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
NO_STORAGE = cast(Storage, None)
"""For requests that never reach the storage."""


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(NO_STORAGE))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        yield client


def test_every_route_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"`(GET|DELETE) (/[^`]*)`", API_PAGE.read_text()))

    assert documented == set(documented_routes())


async def test_health_needs_no_database(client: httpx.AsyncClient) -> None:
    response = await client.get("/health?probe=1")

    assert response.status_code == 200
    assert response.json() == {
        "status": "healthy",
        "service": "msgtrace",
        "version": version("msgtrace"),
    }


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/traces/", "/health/", "/"])
async def test_an_unknown_path_is_404_and_never_redirected(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path)

    assert response.status_code == 404
    assert response.json() == {"detail": "Not Found"}


async def test_a_wrong_method_is_405_and_names_all_methods_of_the_path(
    client: httpx.AsyncClient,
) -> None:
    response = await client.put("/api/v1/traces")

    assert response.status_code == 405
    assert response.json() == {"detail": "Method Not Allowed"}
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}


async def test_head_is_answered_like_get(client: httpx.AsyncClient) -> None:
    assert (await client.head("/health")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/traces/{id}",
        "/api/v1/traces/{id}/tree",
        "/api/v1/services",
        "/api/v1/services/shop/operations",
    ],
)
async def test_an_endpoint_without_parameters_refuses_one_by_name(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path.format(id="0" * 32), params={"limit": "1"})

    assert response.status_code == 400
    assert response.json() == {"detail": "limit: unknown parameter"}


async def test_extra_routes_share_the_port_without_shadowing_the_table() -> None:
    async def export(request: Request) -> PlainTextResponse:
        return PlainTextResponse("exported")

    extra_routes = [Route("/api/v1/traces/export", export, methods=["POST"])]
    transport = httpx.ASGITransport(app=create_app(NO_STORAGE, extra_routes=extra_routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        assert (await client.post("/api/v1/traces/export")).text == "exported"
        assert (await client.get("/api/v1/traces/export?format=csv")).status_code == 400
        assert (await client.get("/health")).status_code == 200


async def test_without_origins_no_page_may_read_a_reply(client: httpx.AsyncClient) -> None:
    response = await client.get("/health", headers={"Origin": "https://ui.example"})

    assert "access-control-allow-origin" not in response.headers


async def test_only_pages_of_an_allowed_origin_may_read_a_reply() -> None:
    transport = httpx.ASGITransport(app=create_app(NO_STORAGE, cors_origins=["https://ui.example"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        allowed = await client.get("/nothing", headers={"Origin": "https://ui.example"})
        foreign = await client.get("/nothing", headers={"Origin": "https://evil.example"})

    assert allowed.headers["access-control-allow-origin"] == "https://ui.example"
    assert "access-control-allow-origin" not in foreign.headers


async def test_a_page_of_an_allowed_origin_may_delete() -> None:
    transport = httpx.ASGITransport(app=create_app(NO_STORAGE, cors_origins=["https://ui.example"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        response = await client.options(
            "/api/v1/traces",
            headers={"Origin": "https://ui.example", "Access-Control-Request-Method": "DELETE"},
        )

    assert response.status_code == 200
