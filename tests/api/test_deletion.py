from __future__ import annotations

import httpx
import pytest

from msgtrace.storage.protocol import Storage
from tests.batches import make_batch, span, trace_id_of

ONE, TWO = trace_id_of("one"), trace_id_of("two")


@pytest.fixture
async def two_traces(storage: Storage) -> None:
    """Trace ONE of service shop, trace TWO of service stock."""
    one = make_batch(span(trace_id=ONE), service="shop")
    two = make_batch(span(trace_id=TWO), service="stock")
    await storage.write_spans([one, two])


async def remaining(client: httpx.AsyncClient) -> set[str]:
    page = (await client.get("/api/v1/traces")).json()
    return {trace["trace_id"] for trace in page["traces"]}


@pytest.mark.usefixtures("two_traces")
async def test_a_deleted_trace_is_gone_and_others_stay(client: httpx.AsyncClient) -> None:
    response = await client.delete(f"/api/v1/traces/{ONE.hex()}")

    assert response.status_code == 204
    assert response.content == b""
    assert (await client.get(f"/api/v1/traces/{ONE.hex()}")).status_code == 404
    assert await remaining(client) == {TWO.hex()}


@pytest.mark.usefixtures("two_traces")
async def test_a_trace_is_deleted_once(client: httpx.AsyncClient) -> None:
    await client.delete(f"/api/v1/traces/{ONE.hex()}")

    response = await client.delete(f"/api/v1/traces/{ONE.hex()}")

    assert response.status_code == 404
    assert response.json() == {"detail": f"trace {ONE.hex()} not found"}


@pytest.mark.usefixtures("two_traces")
async def test_only_matching_traces_are_deleted_by_filter(client: httpx.AsyncClient) -> None:
    response = await client.delete("/api/v1/traces", params={"service_name": "stock"})

    assert response.status_code == 200
    assert response.json() == {"deleted": 1}
    assert await remaining(client) == {ONE.hex()}


@pytest.mark.usefixtures("two_traces")
async def test_everything_is_deleted_when_asked_for(client: httpx.AsyncClient) -> None:
    response = await client.delete("/api/v1/traces", params={"all": "true"})

    assert response.json() == {"deleted": 2}
    assert await remaining(client) == set()


@pytest.mark.usefixtures("two_traces")
@pytest.mark.parametrize(
    "query", ["", "all=false", "q=", "service=shop", "limit=1", "all=true&name=x", "service_name="]
)
async def test_a_deletion_that_may_not_be_meant_deletes_nothing(
    client: httpx.AsyncClient, query: str
) -> None:
    response = await client.delete(f"/api/v1/traces?{query}")

    assert response.status_code == 400
    assert await remaining(client) == {ONE.hex(), TWO.hex()}
