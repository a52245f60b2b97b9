"""Nothing that a client writes into a parameter or a span is ever read as SQL."""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msgtrace.api.app import ROUTES, create_app
from msgtrace.api.params import FILTER_PARAMETERS, PAGE_PARAMETERS
from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.otlp.decode import decode_export_request
from msgtrace.storage.protocol import Storage
from tests.batches import make_batch, request, span, trace_id_of

FRAGMENTS = (
    *("'", "''", '"', "`", "\\", "\\'", ";", "--", "/*", "*/", "#", "%", "_", "?", "$1", ":1"),
    *(" OR ", "1=1", " UNION SELECT ", "NULL", ", sqlite_version()", ", version()", "(", ")"),
    *("; DROP TABLE spans; --", "; DELETE FROM traces; --", "pg_sleep(9)", "$$", "\x00", "\n"),
    *("E'\\x27'", "chr(39)", "CAST(1 AS int)", "shop", "0x31", "é", "\U0001f600", "\ufeff", "||"),
)
"""What makes SQL of text, in both dialects, and what hides it."""

CLASSIC = (
    "' OR '1'='1",
    "' OR 1=1 --",
    "'; DROP TABLE spans; --",
    "shop' UNION SELECT trace_id FROM traces --",
    "\\'; DELETE FROM traces; --",
    "%' OR '%'='",
    "$1",
    "?",
    "1); DELETE FROM spans; --",
)

mixtures = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6).map("".join)
injections = st.one_of(st.sampled_from(CLASSIC), mixtures)
parameters = st.sampled_from(sorted(FILTER_PARAMETERS | PAGE_PARAMETERS | {"all", "unknown"}))

MARK = trace_id_of("bystander").hex()

TEXT_FILTERS = {
    "service_name": "service",
    "name": "name",
    "session_id": "session.id",
    "user_id": "user.id",
    "model": "gen_ai.request.model",
    "workflow_name": "workflow.name",
}
"""Each filter by text, and where a span says what it looks for."""

# The fixtures are made once for all examples of a test, which read, or write traces of their own.
many = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
async def client(storage: Storage) -> AsyncIterator[httpx.AsyncClient]:
    """The query service over every backend, with one trace that no injection is about."""
    await storage.write_spans(
        [make_batch(span("bystander", trace_id=trace_id_of("bystander")), service="bystander")]
    )
    transport = httpx.ASGITransport(app=create_app(storage))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as opened:
        yield opened


async def traces(client: httpx.AsyncClient, **wanted: str) -> set[str]:
    response = await client.get("/api/v1/traces", params={"limit": "1000", **wanted})
    assert response.status_code == 200, response.text
    return {trace["trace_id"] for trace in response.json()["traces"]}


@many
@given(name=parameters, text=injections)
async def test_no_parameter_of_a_reading_route_is_read_as_sql(
    client: httpx.AsyncClient, name: str, text: str
) -> None:
    reading = [path for path, methods in ROUTES.items() if "GET" in methods]
    assert len(reading) >= 6
    for path in reading:
        filled = path.replace("{trace_id}", MARK).replace("{service:path}", "bystander")
        response = await client.get(filled, params={name: text})

        # Refused for its form, or taken for what it is: a text that nothing matches.
        assert response.status_code in (200, 400, 404), (filled, response.text)
    assert MARK in await traces(client)


@many
@given(text=injections)
async def test_no_part_of_a_path_is_read_as_sql(client: httpx.AsyncClient, text: str) -> None:
    quoted = urllib.parse.quote(text, safe="")
    services = await client.get(f"/api/v1/services/{quoted}/operations")
    session = await client.get(f"/api/v1/sessions/{quoted}")
    details = [
        await client.get(f"/api/v1/traces/{quoted}"),
        await client.get(f"/api/v1/traces/{quoted}/tree"),
        await client.delete(f"/api/v1/traces/{quoted}"),
    ]

    assert services.status_code == 200
    assert session.status_code in (200, 400, 404)
    assert "bystander" not in services.text + session.text
    assert all(response.status_code in (400, 404, 405) for response in details)
    assert MARK in await traces(client)


@pytest.mark.parametrize("parameter", sorted(TEXT_FILTERS))
@many
@given(text=injections.filter(lambda text: len(text.encode()) < 200))
async def test_a_hostile_text_finds_the_trace_that_says_it_and_no_other(
    client: httpx.AsyncClient, storage: Storage, parameter: str, text: str
) -> None:
    said = TEXT_FILTERS[parameter]
    trace_id = trace_id_of(f"{parameter} {text}")
    hostile = span(
        text if said == "name" else "work",
        trace_id=trace_id,
        attributes={said: text, "gen_ai.operation.name": "chat"},
    )
    await storage.write_spans([make_batch(hostile, service=text if said == "service" else "shop")])

    assert await traces(client, **{parameter: text}) == {trace_id.hex()}


@many
@given(key=injections.filter(lambda text: "=" not in text and text[0] != "$"), text=injections)
async def test_a_hostile_attribute_is_found_by_its_key_and_value_only(
    client: httpx.AsyncClient, storage: Storage, key: str, text: str
) -> None:
    trace_id = trace_id_of(f"attr {key} {text}")
    await storage.write_spans([make_batch(span(trace_id=trace_id, attributes={key: text}))])

    found = await traces(client, attr=f"{key}={text}")

    assert found == {trace_id.hex()}


@many
@given(text=injections)
async def test_a_deletion_by_a_hostile_filter_deletes_nothing_else(
    client: httpx.AsyncClient, text: str
) -> None:
    # `q` looks into every span, and the bystander says "bystander" alone.
    for name in ("service_name", "name", "session_id", "user_id", "model", "workflow_name", "attr"):
        response = await client.delete("/api/v1/traces", params={name: text})

        assert response.status_code in (200, 400)
        assert response.status_code != 200 or response.json() == {"deleted": 0}
    assert MARK in await traces(client)


@many
@given(texts=st.lists(injections, min_size=12, max_size=12))
async def test_hostile_spans_are_stored_as_they_were_sent(
    storage: Storage, texts: list[str]
) -> None:
    name, state, message, key, value, event, scope, *_ = texts
    trace_id = trace_id_of("\x1f".join(texts))
    hostile = span(
        name, trace_id=trace_id, trace_state=state, status_message=message, attributes={key: value}
    )
    hostile.events.add(name=event)
    export = request(hostile, service=texts[7], resource={texts[8]: texts[9]})
    export.resource_spans[0].scope_spans[0].scope.name = scope
    export.resource_spans[0].scope_spans[0].scope.version = texts[10]
    export.resource_spans[0].schema_url = texts[11]

    await storage.write_spans([decode_export_request(export.SerializeToString())])

    trace = await storage.get_trace(DEFAULT_TENANT, trace_id)
    assert trace is not None
    [stored] = trace.spans
    assert (stored.name, stored.trace_state, stored.status_message) == (name, state, message)
    assert (stored.scope.name, stored.scope.version) == (scope, texts[10])
    assert stored.resource.schema_url == texts[11]
