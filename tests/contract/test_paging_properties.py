"""Whatever comes and goes between two pages: what stays is shown once, and in order."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msgtrace.model.search import TraceFilter, TraceSearch
from msgtrace.model.span import TenantId, TraceId
from msgtrace.otlp.decode import decode_export_request
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, request, span, trace_id_of

_tenants = itertools.count(1)

FILTERS: list[dict[str, Any]] = [
    {},
    {"service_name": "even"},
    {"name": "even work"},
    {"service_name": "even", "name": "even work"},
    {"attributes": (("parity", "even"),)},
    {"session_id": "even"},
    {"min_duration_ns": 2},
]

ops = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("page"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


async def write(storage: Storage, tenant: TenantId, number: int, start: int) -> None:
    """A trace that says of itself whether its number is even, in every way."""
    parity = ("even", "odd")[number % 2]
    sent = span(
        f"{parity} work",
        trace_id=trace_id_of(f"{number}"),
        start_ns=NOON_NS + start,
        duration_ns=(number + 1) % 2 * 2,
        attributes={"parity": parity, "session.id": parity},
    )
    body = request(sent, service=parity).SerializeToString()
    await storage.write_spans([decode_export_request(body, tenant_id=tenant)])


@given(
    before=st.dictionaries(st.integers(0, 40), st.integers(0, 5), max_size=25),
    ops=ops,
    limit=st.integers(1, 4),
    wanted=st.sampled_from(FILTERS),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_what_stays_is_shown_exactly_once_and_in_order(
    storage: Storage,
    before: dict[int, int],
    ops: list[tuple[str, int, int]],
    limit: int,
    wanted: dict[str, Any],
) -> None:
    tenant = TenantId(next(_tenants))
    for number, start in before.items():
        await write(storage, tenant, number, start)
    stays, stored = set(before), set(before)
    search = TraceSearch(filter=TraceFilter(**wanted), limit=limit)
    seen: list[tuple[int, TraceId]] = []
    is_over = False
    for kind, number, start in [*ops, *[("page", 0, 0)] * 50]:
        if kind == "write" and number not in before:
            await write(storage, tenant, number, start)
            stored.add(number)
        elif kind == "delete":
            await storage.delete_trace(tenant, trace_id_of(f"{number}"))
            stays.discard(number)
            stored.discard(number)
        elif kind == "page" and not is_over:
            page = await storage.find_traces(tenant, search)
            seen += [(each.start_time_ns, each.trace_id) for each in page.traces]
            matching = {each for each in stored if not wanted or each % 2 == 0}
            assert (page.total, page.is_total_exact) == (len(matching), True)
            is_over = page.next_cursor is None
            search = dataclasses.replace(search, after=page.next_cursor or search.after)

    assert is_over
    assert seen == sorted(set(seen), reverse=True)
    expected = {trace_id_of(f"{n}") for n in stays if not wanted or n % 2 == 0}
    assert expected <= {trace_id for _, trace_id in seen}
