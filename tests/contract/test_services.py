"""Which services and operations there are."""

from __future__ import annotations

from msgtrace.model.trace import Operation
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_A, TRACE_B, make_batch, span, trace_id_of
from tests.contract.reading import TENANT


async def test_an_empty_database_has_no_services(storage: Storage) -> None:
    assert await storage.list_services(TENANT) == []
    assert await storage.list_operations(TENANT, "shop") == []


async def test_services_are_listed_once_and_sorted(storage: Storage) -> None:
    for number, service in enumerate(["b", "a", "B", "é", "a", "", "0"]):
        batch = make_batch(span(f"{number}", start_ns=NOON_NS + number), service=service)
        await storage.write_spans([batch])

    services = await storage.list_services(TENANT)

    assert services == ["0", "B", "a", "b", "unknown_service", "é"]


async def test_services_of_all_times_are_listed(storage: Storage) -> None:
    for service, start_ns in {"old": 0, "new": NOON_NS, "future": 2**63 - 1}.items():
        batch = make_batch(
            span(service, trace_id=trace_id_of(service), start_ns=start_ns), service=service
        )
        await storage.write_spans([batch])

    assert await storage.list_services(TENANT) == ["future", "new", "old"]


async def test_operations_are_the_distinct_names_and_kinds_of_one_service(storage: Storage) -> None:
    await storage.write_spans(
        [
            make_batch(
                span("GET /", span_id=b"1" * 8, kind=2),
                span("GET /", span_id=b"2" * 8, kind=2),
                span("GET /", span_id=b"3" * 8, kind=3),
                span("", kind=-7),
                span("DELETE /", kind=99),
            ),
            make_batch(span("other"), service="bank"),
        ]
    )

    operations = await storage.list_operations(TENANT, "shop")

    assert operations == [
        Operation(name="", span_kind=-7),
        Operation(name="DELETE /", span_kind=99),
        Operation(name="GET /", span_kind=2),
        Operation(name="GET /", span_kind=3),
    ]
    assert await storage.list_operations(TENANT, "sho") == []


async def test_a_service_vanishes_with_its_last_span(storage: Storage) -> None:
    await storage.write_spans(
        [
            make_batch(span("a"), service="both"),
            make_batch(span("b"), service="gone"),
            make_batch(span("c", trace_id=TRACE_B), service="both"),
        ]
    )

    await storage.delete_trace(TENANT, TRACE_A)

    assert await storage.list_services(TENANT) == ["both"]
    assert await storage.list_operations(TENANT, "gone") == []
    assert [each.name for each in await storage.list_operations(TENANT, "both")] == ["c"]
