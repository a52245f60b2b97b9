"""The trace list: what each filter matches, and that paging shows every trace once."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from msgtrace.errors import QueryTimeout
from msgtrace.model.search import EXACT_TOTAL_CAP, Cursor, TraceFilter, TraceSearch
from msgtrace.model.span import DEFAULT_TENANT, TenantId, TraceId
from msgtrace.model.trace import TraceSummary
from msgtrace.model.units import NS_PER_MS, NS_PER_S
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage, TraceReader
from tests.batches import NOON_NS, TRACE_A, TRACE_B, make_batch, span, trace_id_of
from tests.contract.reading import (
    TENANT,
    expected_summaries,
    find,
    found_names,
    read_trace,
    write_traces,
)

# Filters


@dataclass(frozen=True, kw_only=True)
class Case:
    """A filter and the traces of `three_traces` that it matches."""

    field: str
    wanted: dict[str, Any]
    found: list[str]


def case(field: str, value: Any, *found: str) -> Case:
    return Case(field=field, wanted={field: value}, found=sorted(found))


def attribute(key: str, value: str, *found: str) -> Case:
    return case("attributes", ((key, value),), *found)


CASES = [
    case("service_name", "front", "checkout"),
    case("service_name", "bank", "checkout", "report"),
    case("service_name", "ban"),
    case("service_name", "BANK"),
    case("workflow_name", "ordering", "checkout"),
    case("workflow_name", "order"),
    case("name", "checkout", "checkout"),
    case("name", "charge", "checkout", "report"),
    case("name", "char"),
    case("name", "Charge"),
    case("session_id", "s-1", "checkout"),
    case("session_id", "s-2", "report"),
    case("session_id", ""),
    case("user_id", "ana", "checkout"),
    case("user_id", "an"),
    case("model", "m-large", "checkout"),
    case("model", "m-small", "checkout", "report"),
    case("model", "m"),
    case("tool", "card_reader", "checkout"),
    case("tool", "card"),
    case("min_tokens", 42, "checkout"),
    case("min_tokens", 43),
    case("min_tokens", 0, "checkout", "idle", "report"),
    case("min_cost", 0.25, "checkout"),
    case("min_cost", 0.250001),
    case("min_cost", 0.0, "checkout", "idle", "report"),
    case("has_errors", True, "checkout"),
    case("has_errors", False, "idle", "report"),
    case("min_duration_ns", 100 * NS_PER_MS, "checkout"),
    case("min_duration_ns", 100 * NS_PER_MS + 1),
    case("min_duration_ns", 0, "checkout", "idle", "report"),
    case("max_duration_ns", 5 * NS_PER_MS, "idle", "report"),
    case("max_duration_ns", 5 * NS_PER_MS - 1, "idle"),
    case("max_duration_ns", 0, "idle"),
    case("start_ns", NOON_NS + NS_PER_S, "report", "idle"),
    case("start_ns", NOON_NS + NS_PER_S + 1, "idle"),
    case("start_ns", 0, "checkout", "idle", "report"),
    case("end_ns", NOON_NS + NS_PER_S, "checkout"),
    case("end_ns", NOON_NS + NS_PER_S + 1, "checkout", "report"),
    case("end_ns", 0),
    attribute("text", "Tea", "checkout"),
    attribute("text", "tea"),
    attribute("text", "Te"),
    attribute("true", "true", "checkout"),
    attribute("true", "false"),
    attribute("true", "1"),
    attribute("false", "false", "checkout"),
    attribute("false", "0"),
    attribute("int", "7", "checkout"),
    attribute("int", "7.0", "checkout"),
    attribute("int", "77"),
    attribute("digits", "7", "checkout"),
    attribute("digits", "7.0"),
    attribute("double", "2.5", "checkout"),
    attribute("double", "25e-1", "checkout"),
    attribute("whole", "3", "checkout"),
    attribute("negative", "-4", "checkout"),
    attribute("tiny", "5e-324", "checkout"),
    attribute("largest", "9007199254740991", "checkout"),
    attribute("largest", "9007199254740990"),
    attribute("beyond", "9223372036854775807", "checkout"),
    attribute("beyond", "9223372036854775806"),
    attribute("nan", "NaN", "checkout"),
    attribute("infinity", "-Infinity", "checkout"),
    attribute("infinity", "Infinity"),
    attribute("empty", "", "checkout"),
    attribute("none", "null"),
    attribute("none", ""),
    attribute("list", "a"),
    attribute("map", "a"),
    attribute("gone", ""),
    attribute("Text", "Tea"),
    attribute('a"b\\c.d$[0]', "odd key", "checkout"),
    attribute("", "empty key", "checkout"),
    attribute("␀", "\0", "checkout"),
    attribute("single", "x' OR 1=1 --"),
    attribute("int", "1e999"),
    attribute("int", "nan"),
    attribute("int", "1" + "0" * 400),
    attribute("deployment", "prod", "report"),
    attribute("service.name", "bank", "checkout", "report"),
    case("text", "green tea", "checkout"),
    case("text", "GREEN", "checkout"),
    case("text", "harg", "checkout", "report"),
    case("text", "card was", "checkout"),
    case("text", "odd key", "checkout"),
    case("text", 'says "yes"\n', "checkout"),
    case("text", "C:\\new", "checkout"),
    case("text", "nothing like it"),
    case("text", "", "checkout", "idle", "report"),
]


async def write_three_traces(storage: Storage) -> None:
    """A lively trace, one that shares some of what it says, and one that says nothing."""
    attributes = {
        "text": "Tea",
        "true": True,
        "false": False,
        "int": 7,
        "digits": "7",
        "double": 2.5,
        "whole": 3.0,
        "negative": -4,
        "tiny": 5e-324,
        "largest": 2**53 - 1,
        "beyond": 2**63 - 1,
        "nan": float("nan"),
        "infinity": float("-inf"),
        "empty": "",
        "none": None,
        "list": ["a"],
        "map": {"a": "a"},
        'a"b\\c.d$[0]': "odd key",
        "": "empty key",
        "␀": "\0",
        "quote": 'she says "yes"\n',
        "path": "C:\\new",
        "prompt": "how long for Green Tea?",
        "session.id": "s-1",
        "user.id": "ana",
        "workflow.name": "ordering",
        "gen_ai.request.model": "m-large",
    }
    one = trace_id_of("checkout")
    failed: dict[str, Any] = {
        "status_code": 2,
        "status_message": "the card was declined",
        "attributes": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "card_reader"},
    }
    thought = {
        "llm.model": "m-small",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cost.amount": 0.25,
    }
    await storage.write_spans(
        [
            make_batch(
                span("checkout", trace_id=one, attributes=attributes, duration_ns=100 * NS_PER_MS),
                service="front",
            ),
            make_batch(
                span("charge", trace_id=one, parent="checkout", start_ns=NOON_NS + 1, **failed),
                span("think", trace_id=one, parent="x", attributes=thought),
                service="bank",
            ),
        ]
    )
    two = trace_id_of("report")
    root = span("report", trace_id=two, start_ns=NOON_NS + NS_PER_S, duration_ns=5 * NS_PER_MS)
    child = span(
        "charge",
        trace_id=two,
        parent="report",
        start_ns=NOON_NS + NS_PER_S,
        attributes={"session.id": "s-2", "llm.model": "m-small"},
    )
    await storage.write_spans(
        [make_batch(root, child, service="bank", resource={"deployment": "prod"})]
    )
    idle = span(
        "idle", trace_id=trace_id_of("idle"), start_ns=NOON_NS + 2 * NS_PER_S, duration_ns=0
    )
    await storage.write_spans([make_batch(idle, service="cron")])


@pytest.fixture
async def three_traces(storage: Storage) -> Storage:
    await write_three_traces(storage)
    return storage


def test_every_field_of_a_filter_has_a_case() -> None:
    assert {each.field for each in CASES} == {each.name for each in dataclasses.fields(TraceFilter)}


async def test_a_filter_matches_exactly_its_traces(three_traces: Storage) -> None:
    wrong = []
    for each in CASES:
        found = await found_names(three_traces, **each.wanted)
        if found != each.found:
            wrong.append((each, found))

    assert wrong == []


async def test_no_filter_matches_all(three_traces: Storage) -> None:
    assert await found_names(three_traces) == ["checkout", "idle", "report"]


async def test_all_that_is_asked_must_hold(three_traces: Storage) -> None:
    # Name, service and attributes at once would have to hold for one span: see the next test.
    true_for_checkout = [
        each.wanted
        for each in CASES
        if "checkout" in each.found
        and each.field not in ("name", "service_name")
        and each.wanted != {"attributes": (("service.name", "bank"),)}
    ]
    false_for_checkout = [each.wanted for each in CASES if "checkout" not in each.found]
    random = Random(1)
    for _ in range(40):
        several: dict[str, Any] = {}
        for wanted in random.sample(true_for_checkout, 4):
            several |= wanted
        assert "checkout" in await found_names(three_traces, **several), several
        against = random.choice(false_for_checkout)
        assert "checkout" not in await found_names(three_traces, **several | against), against


async def test_service_name_and_attributes_must_hold_for_one_span(storage: Storage) -> None:
    trace_id = trace_id_of("t")
    await storage.write_spans(
        [
            make_batch(
                span("a", trace_id=trace_id, attributes={"x": 1, "y": 1}),
                service="one",
                resource={"zone": "north"},
            ),
            make_batch(
                span("b", trace_id=trace_id, attributes={"x": 2}),
                service="two",
                resource={"zone": "south"},
            ),
        ]
    )

    x1, x2, y1 = ("x", "1"), ("x", "2"), ("y", "1")
    north, south = ("zone", "north"), ("zone", "south")
    same: list[dict[str, Any]] = [
        {"name": "a", "service_name": "one"},
        {"name": "a", "attributes": (x1, y1)},
        {"name": "a", "attributes": (north, x1)},
        {"service_name": "two", "attributes": (x2, south)},
        {"name": "b", "service_name": "two", "attributes": (x2,)},
    ]
    different: list[dict[str, Any]] = [
        {"name": "a", "service_name": "two"},
        {"name": "a", "attributes": (x2,)},
        {"name": "b", "attributes": (north,)},
        {"attributes": (x1, x2)},
        {"attributes": (x2, y1)},
        {"attributes": (x1, south)},
        {"service_name": "one", "attributes": (x2,)},
    ]
    assert [wanted for wanted in same if (await find(storage, **wanted)).total != 1] == []
    assert [wanted for wanted in different if (await find(storage, **wanted)).total != 0] == []


async def test_text_may_be_in_another_span_than_the_name(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("a"), span("b", attributes={"said": "hello"}))])

    assert (await find(storage, name="a", text="hello")).total == 1


@pytest.mark.parametrize("wildcard", ["%", "_", "\\", "100%", "a_b", "\\%"])
async def test_wildcards_in_text_are_literal(storage: Storage, wildcard: str) -> None:
    await write_traces(
        storage,
        {
            "in name": [span(f"x{wildcard}y")],
            "in message": [span("m", status_message=f"x{wildcard}y")],
            "in attribute": [span("a", attributes={"k": f"x{wildcard}y"})],
            "in key": [span("k", attributes={f"x{wildcard}y": 1})],
            "in none": [span("100 aXb xZy", attributes={"k": 1})],
        },
    )

    found = await find(storage, text=f"x{wildcard}y")

    assert {summary.trace_id for summary in found.traces} == {
        trace_id_of(name) for name in ("in name", "in message", "in attribute", "in key")
    }
    assert trace_id_of("in none") not in {
        t.trace_id for t in (await find(storage, text=wildcard)).traces
    }


async def test_a_tenant_sees_nothing_of_another(three_traces: Storage) -> None:
    other = TenantId(DEFAULT_TENANT + 1)

    page = await three_traces.find_traces(other, TraceSearch())

    assert (page.traces, page.total) == ([], 0)
    assert (await three_traces.get_stats(other, TraceFilter())).total_traces == 0
    assert await three_traces.list_services(other) == []
    assert await three_traces.delete_traces(other, TraceFilter()) == 0
    assert await three_traces.delete_trace(other, trace_id_of("idle")) is False
    assert (await find(three_traces)).total == 3


# Order and pages


async def every_page(
    storage: TraceReader, limit: int, between: Any = None, **wanted: Any
) -> list[TraceSummary]:
    """All traces by following the cursor; `between` runs after each page."""
    search = TraceSearch(filter=TraceFilter(**wanted), limit=limit)
    seen: list[TraceSummary] = []
    while True:
        page = await storage.find_traces(TENANT, search)
        assert len(page.traces) <= limit
        seen += page.traces
        if page.next_cursor is None:
            return seen
        assert len(page.traces) == limit
        search = dataclasses.replace(search, after=page.next_cursor)
        if between is not None:
            await between()


def many_traces(prefix: str, count: int, random: Random) -> dict[str, Any]:
    """Traces of one span at few different times, so that many start together."""
    return {
        f"{prefix}{n}": [span(f"{n}", start_ns=NOON_NS + random.randrange(5))] for n in range(count)
    }


def in_order(summaries: list[TraceSummary]) -> bool:
    places = [(summary.start_time_ns, summary.trace_id) for summary in summaries]
    return places == sorted(places, reverse=True)


@pytest.mark.parametrize("limit", [1, 7, 39, 40, 41])
async def test_pages_show_every_trace_once_newest_first(storage: Storage, limit: int) -> None:
    await write_traces(storage, many_traces("t", 40, Random(1)))

    seen = await every_page(storage, limit)

    assert in_order(seen)
    assert {each.trace_id for each in seen} == {trace_id_of(f"t{n}") for n in range(40)}
    assert len(seen) == 40


@pytest.mark.parametrize("seed", range(2))
async def test_pages_show_every_trace_once_while_others_come_and_go(
    storage: Storage, seed: int
) -> None:
    random = Random(seed)
    await write_traces(storage, many_traces("stays", 30, random))
    await write_traces(storage, many_traces("goes", 30, random))
    going = [trace_id_of(f"goes{n}") for n in random.sample(range(30), 30)]
    coming = many_traces("comes", 30, random)

    async def disturb() -> None:
        for _ in range(3):
            if going:
                await storage.delete_trace(TENANT, going.pop())
            if coming:
                await write_traces(storage, dict([coming.popitem()]))

    seen = await every_page(storage, 4, disturb)

    places = [each.trace_id for each in seen]
    assert in_order(seen)
    assert len(set(places)) == len(places)
    assert {trace_id_of(f"stays{n}") for n in range(30)} <= set(places)


async def test_pages_keep_to_the_filter(storage: Storage) -> None:
    await write_traces(
        storage, {f"{n}": [span("ab"[n % 2], start_ns=NOON_NS + n)] for n in range(20)}
    )

    seen = await every_page(storage, 3, name="b")

    assert [each.start_time_ns - NOON_NS for each in seen] == list(range(19, 0, -2))


async def test_a_cursor_may_point_to_a_trace_that_is_gone(storage: Storage) -> None:
    await write_traces(storage, {"only": [span()]})
    last = TraceId(b"\xff" * 16)
    for start_ns, found in ((NOON_NS + 1, 1), (NOON_NS, 1), (NOON_NS - 1, 0)):
        search = TraceSearch(after=Cursor(start_ns, last))
        page = await storage.find_traces(TENANT, search)
        assert (len(page.traces), page.total) == (found, 1)


async def test_an_offset_leaves_out_the_newest(storage: Storage) -> None:
    await write_traces(storage, {f"{n}": [span(start_ns=NOON_NS + n)] for n in range(5)})

    page = await storage.find_traces(TENANT, TraceSearch(limit=2, offset=2))
    beyond = await storage.find_traces(TENANT, TraceSearch(limit=2, offset=9))

    assert [each.start_time_ns - NOON_NS for each in page.traces] == [2, 1]
    assert page.next_cursor is not None
    assert (beyond.traces, beyond.total, beyond.next_cursor) == ([], 5, None)


async def test_a_total_is_exact_up_to_the_cap_and_says_so_beyond(storage: Storage) -> None:
    spans = [span(f"{n}", trace_id=trace_id_of(f"{n}")) for n in range(EXACT_TOTAL_CAP)]
    await storage.write_spans([make_batch(*spans)])

    full = await find(storage)
    await storage.write_spans([make_batch(span(trace_id=TRACE_A))])
    over = await find(storage)

    assert (full.total, full.is_total_exact) == (EXACT_TOTAL_CAP, True)
    assert (over.total, over.is_total_exact) == (EXACT_TOTAL_CAP, False)
    assert over.next_cursor is not None


async def test_a_page_and_its_summaries_are_what_was_written(storage: Storage) -> None:
    spans = [
        span("root", trace_id=trace_id, start_ns=NOON_NS + n, attributes={"session.id": f"{n}"})
        for n, trace_id in enumerate((TRACE_A, TRACE_B))
    ]
    await storage.write_spans([make_batch(*spans)])

    page = await find(storage)

    expected = expected_summaries([make_batch(*spans)])
    assert page.traces == [expected[TRACE_B], expected[TRACE_A]]
    assert page.next_cursor is None


# Time limits


async def test_a_read_that_takes_too_long_is_a_query_timeout(settings: Settings) -> None:
    # Long texts that nearly match, over and over.
    attributes = {"prompt": "a" * 20_000}
    spans = [
        span(f"{n}", trace_id=trace_id_of(f"{n}"), attributes=attributes) for n in range(3_000)
    ]
    async with open_storage(settings) as storage:
        await storage.write_spans([make_batch(*spans)])

    impatient = dataclasses.replace(settings, query_timeout_s=0.1)
    async with open_storage(impatient) as storage:
        with pytest.raises(QueryTimeout):
            await find(storage, text="ab")

        # The connection is as good as before.
        assert len((await read_trace(storage, trace_id_of("7"))).spans) == 1
        reads = [find(storage, text="ab") for _ in range(6)]
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(each) for each in outcomes] == [QueryTimeout] * 6
        assert len((await read_trace(storage, trace_id_of("8"))).spans) == 1
