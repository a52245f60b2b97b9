"""Sessions, messages and folded trees over HTTP, on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from msgtrace.otlp.decode import decode_export_request
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, make_batch, span, span_id_of, trace_id_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


async def write_sessions(storage: Storage) -> None:
    """Sessions a (2 traces), b/1 (1 trace) and c (3 traces), interleaved; one trace of none."""
    for at, session in enumerate(["a", "c", "b/1", None, "c", "a", "c"]):
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": f"model-{at % 2}",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.cost.amount": 0.5,
        }
        if session is not None:
            attributes |= {"session.id": session}
        if at == 1:
            attributes |= {"user.id": "ana"}
        sent = span(
            f"turn {at}",
            trace_id=trace_id_of(f"{at}"),
            start_ns=NOON_NS + at,
            duration_ns=100,
            attributes=attributes,
            status_code=2 if at == 4 else 0,
        )
        await storage.write_spans([make_batch(sent)])


async def listed(client: httpx.AsyncClient, **parameters: Any) -> list[str]:
    reply = await client.get("/api/v1/sessions", params=parameters)
    return [each["session_id"] for each in reply.json()["sessions"]]


async def test_sessions_stand_by_their_newest_trace_with_sums(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await write_sessions(storage)

    reply = (await client.get("/api/v1/sessions")).json()

    assert [each["session_id"] for each in reply["sessions"]] == ["c", "a", "b/1"]
    assert reply["next_cursor"] is None
    assert reply["sessions"][0] == {
        "session_id": "c",
        "start_time": "2026-03-01T12:00:00.000000001Z",
        "end_time": "2026-03-01T12:00:00.000000106Z",
        "start_time_unix_nano": str(NOON_NS + 1),
        "end_time_unix_nano": str(NOON_NS + 106),
        "newest_trace_id": trace_id_of("6").hex(),
        "newest_start_time": "2026-03-01T12:00:00.000000006Z",
        "newest_start_time_unix_nano": str(NOON_NS + 6),
        "trace_count": 3,
        "traces_with_errors": 1,
        "span_count": 3,
        "error_count": 1,
        "user_id": "ana",
        "workflow_name": None,
        "models": ["model-0", "model-1"],
        "input_tokens": 30,
        "output_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": 1.5,
        "estimated_cost": 0.0,
    }


async def test_following_next_cursor_shows_every_session_once(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await write_sessions(storage)

    seen: list[str] = []
    parameters: dict[str, Any] = {"limit": 1}
    for _ in range(3):
        page = (await client.get("/api/v1/sessions", params=parameters)).json()
        seen += [each["session_id"] for each in page["sessions"]]
        parameters["cursor"] = page["next_cursor"]

    assert seen == ["c", "a", "b/1"]
    assert parameters["cursor"] is None


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"user_id": "ana"}, ["c"]),
        ({"user_id": "eve"}, []),
        ({"start": NOON_NS + 3}, ["c", "a"]),
        ({"end": NOON_NS + 6}, ["a", "b/1"]),
    ],
)
async def test_sessions_are_found_by_user_and_time(
    client: httpx.AsyncClient, storage: Storage, parameters: dict[str, Any], names: list[str]
) -> None:
    await write_sessions(storage)

    assert await listed(client, **parameters) == names


async def test_a_session_shows_its_traces(client: httpx.AsyncClient, storage: Storage) -> None:
    await write_sessions(storage)

    one = (await client.get("/api/v1/sessions/b/1")).json()
    page = (await client.get("/api/v1/sessions/c", params={"limit": 2})).json()
    rest = await client.get("/api/v1/sessions/c", params={"cursor": page["next_cursor"]})

    assert (one["trace_count"], [each["root_span_name"] for each in one["traces"]]) == (
        1,
        ["turn 2"],
    )
    assert (page["trace_count"], page["cost"]) == (3, 1.5)
    names = [each["root_span_name"] for each in (*page["traces"], *rest.json()["traces"])]
    assert names == ["turn 6", "turn 4", "turn 1"]


async def test_an_unknown_session_is_not_found(client: httpx.AsyncClient) -> None:
    reply = await client.get("/api/v1/sessions/nobody")

    assert (reply.status_code, reply.json()) == (404, {"detail": "session not found"})


async def test_messages_and_folded_tree_of_a_captured_turn(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    request = (FIXTURES / "msgflux-agent-1.binpb").read_bytes()
    await storage.write_spans([decode_export_request(request)])
    [summary] = (await client.get("/api/v1/traces")).json()["traces"]
    path = f"/api/v1/traces/{summary['trace_id']}"

    whole = (await client.get(f"{path}/tree")).json()
    folded = (await client.get(f"{path}/tree", params={"fold": "wrappers"})).json()
    agent = folded["roots"][0]["children"][0]
    first = agent["children"][0]
    said = (await client.get(f"{path}/spans/{first['span']['span_id']}/messages")).json()

    assert whole["span_count"] == folded["span_count"] == 23
    assert whole["roots"][0]["children"][0]["children"][0]["span"]["name"] == "Generator"
    assert len(agent["children"]) == 8
    assert first["usage"] == {
        "model": "gpt-5-mini-2025-08-07",
        "provider": "openai",
        "input_tokens": 120,
        "output_tokens": 31,
        "cached_tokens": 64,
        "reasoning_tokens": 8,
        "cost": pytest.approx(0.0000776),
        "is_estimated": True,
        "counts_tokens": True,
        "counts_cost": False,  # the flow around it states the cost of all
    }
    assert folded["roots"][0]["subtree"]["cost"] == pytest.approx(0.00043)
    assert [(each["role"], each["parts"][0]["type"]) for each in said["input"]] == [
        ("system", "text"),
        ("user", "text"),
    ]
    assert [(each["name"], each["result"]) for each in said["tool_calls"]] == [
        ("get_weather", "29 C and sunny in Natal"),
        ("add", "5"),
    ]


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("tree?fold=all", 400, "fold: must be wrappers"),
        ("spans/xyz/messages", 400, "span_id: must be 16 hex digits"),
        (f"spans/{'0' * 15}1/messages", 404, f"span {'0' * 15}1 not found in the trace"),
    ],
)
async def test_what_is_not_there_is_named(
    client: httpx.AsyncClient, storage: Storage, path: str, status: int, detail: str
) -> None:
    await storage.write_spans([make_batch(span("a"))])

    reply = await client.get(f"/api/v1/traces/{'aa' * 16}/{path}")

    assert (reply.status_code, reply.json()) == (status, {"detail": detail})


async def test_lists_hold_nothing_that_people_wrote(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    secret = "the prompt that nobody may see in a list"
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": "c",
        "gen_ai.input.messages": secret,
        "gen_ai.prompt": secret,
        "input.value": secret,
        "gen_ai.tool.call.arguments": secret,
    }
    await storage.write_spans([make_batch(span("chat", attributes=said, status_message=secret))])

    for path in ("traces", "stats", "sessions", "sessions/c", "services"):
        assert secret not in (await client.get(f"/api/v1/{path}")).text
    detail = await client.get(
        f"/api/v1/traces/{'aa' * 16}/spans/{span_id_of('chat').hex()}/messages"
    )
    assert secret in detail.text
