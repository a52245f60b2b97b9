"""Replies that are written while they are read."""

from __future__ import annotations

from random import Random

import httpx
import pytest

from msgtrace.api import traces
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_A, make_batch, span
from tests.stored import span_id

DETAIL = f"/api/v1/traces/{TRACE_A.hex()}"
TREE = f"{DETAIL}/tree"


async def write_random_forest(storage: Storage, count: int, seed: int) -> None:
    """Roots, children, orphans, rings and long chains."""
    random = Random(seed)
    parents = {
        number: random.choice(
            (None, number - 1, number - 1, random.randrange(1, count), number, 10_000 + number)
        )
        for number in range(2, count)
    }
    spans = [
        span(
            f"{number}",
            span_id=span_id(number),
            parent=None if parent is None else span_id(parent),
            start_ns=NOON_NS + random.randrange(count // 2),
            attributes={"n": number},
        )
        for number, parent in parents.items()
    ]
    random.shuffle(spans)
    await storage.write_spans([make_batch(*spans)])


async def both_replies(
    client: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[httpx.Response, httpx.Response]:
    """Of a trace that is small enough to be answered at once, and of one that is not."""
    whole = await client.get(path)
    with monkeypatch.context() as patch:
        patch.setattr(traces, "MAX_WHOLE_SPANS", 1)
        return whole, await client.get(path)


@pytest.mark.parametrize("path", [DETAIL, TREE])
@pytest.mark.parametrize("seed", range(4))
async def test_a_large_trace_reads_like_a_small_one(
    storage: Storage,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    seed: int,
) -> None:
    await write_random_forest(storage, 400, seed)

    whole, streamed = await both_replies(client, path, monkeypatch)

    assert (whole.status_code, streamed.status_code) == (200, 200)
    assert streamed.content == whole.content
    assert streamed.headers["content-type"] == whole.headers["content-type"]
    assert "content-length" in whole.headers
    assert "content-length" not in streamed.headers


async def test_a_chain_of_a_thousand_spans_is_streamed_as_a_tree(
    storage: Storage, client: httpx.AsyncClient
) -> None:
    spans = [
        span(f"{n}", span_id=span_id(n), parent=span_id(n - 1) if n > 1 else None, start_ns=NOON_NS)
        for n in range(1, 1_001)
    ]
    await storage.write_spans([make_batch(*spans)])

    reply = await client.get(TREE)

    assert "content-length" not in reply.headers
    node, depth = reply.json()["roots"][0], 1
    while node["children"]:
        node, depth = node["children"][0], depth + 1
    assert depth == 201  # and the deeper ones stand beside this one
    assert reply.json()["span_count"] == 1_000


async def test_a_reply_that_cannot_be_finished_is_broken_off(
    storage: Storage, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_random_forest(storage, 700, 1)
    first_chunk, read = 0, storage.read_outlined

    async def read_and_delete(*arguments):  # type: ignore[no-untyped-def]  # as read_outlined
        nonlocal first_chunk
        async for chunk in read(*arguments):
            yield chunk
            first_chunk = first_chunk or len(chunk)
            await storage.delete_trace(0, TRACE_A)  # type: ignore[arg-type]  # the default tenant

    monkeypatch.setattr(storage, "read_outlined", read_and_delete)
    with pytest.raises(Exception, match="response already started"):
        await client.get(DETAIL)

    assert 0 < first_chunk < 700
