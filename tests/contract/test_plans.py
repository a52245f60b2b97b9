"""Every question of the query service stays on its index, whatever the database is free to choose.

With some ten thousand traces, analyzed, so that the planner has a choice.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.query_data import NEVER, Sample, TraceMaker
from msgtrace.model.search import TraceFilter, TraceSearch
from msgtrace.model.span import TraceId
from msgtrace.model.trace import TraceOutline
from msgtrace.model.units import NS_PER_S
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.contract.plans import Explainer, Plan, explaining
from tests.contract.reading import TENANT

SPANS = 40_000
MAX_TRACE_SPANS = 5

TABLES = {"spans", "s", "traces", "t"}

FILTER_KEYS = ("attribute_filters_pkey", "sqlite_autoindex_attribute_filters_1")

OF_ONE_TRACE = {"spans_identity", "traces_pkey", "resources_pkey", "PRIMARY KEY"}
"""Indexes along which the spans of a trace that was found, and their resources, are looked at."""


async def filled(settings: Settings) -> list[Sample]:
    maker = TraceMaker(1, SPANS, MAX_TRACE_SPANS)
    made = False  # the first call only finds where to begin
    async with open_storage(settings) as storage:
        for batch in maker.batches():
            await storage.write_spans([batch])
        while await storage.make_attribute_filters() or not made:
            made = True
    return maker.samples


def problems(name: str, plan: Plan, *allowed: str) -> list[str]:
    """What is wrong with a plan that must go along one of the allowed indexes, and only them."""
    found = [f"{name}: reads all of {table}" for table in plan.scans & TABLES]
    if strange := plan.indexes - set(allowed) - OF_ONE_TRACE:
        found.append(f"{name}: goes along {sorted(strange)}, not {allowed}")
    if not plan.indexes & set(allowed):
        found.append(f"{name}: goes along {sorted(plan.indexes)}, none of {allowed}")
    return found


async def all_plans(explainer: Explainer, **wanted: Any) -> list[Plan]:
    """The last one is that of the count."""
    await explainer.reader.find_traces(TENANT, TraceSearch(filter=TraceFilter(**wanted)))
    return explainer.take()


async def page_plan(explainer: Explainer, **wanted: Any) -> Plan:
    return (await all_plans(explainer, **wanted))[0]


async def test_questions_stay_on_their_index(settings: Settings) -> None:
    samples = await filled(settings)
    for analyze in (False, True):
        wrong = await all_problems(settings, samples, analyze)
        assert wrong == [], "\n".join(wrong)


async def all_problems(settings: Settings, samples: list[Sample], analyze: bool) -> list[str]:
    """Of every question."""
    # Of a service that is rare: to look for a frequent one, all traces are as good as an index.
    services = Counter(each.service for each in samples).most_common()
    one = next(each for each in samples if each.service == services[-1][0])
    named = next(each for each in samples if each.session_id)
    window: dict[str, Any] = {"start_ns": one.start_ns, "end_ns": one.start_ns + 3_600 * NS_PER_S}
    # SQLite has no index for what is in a list: the newest traces are looked through.
    label = "traces_newest" if settings.database_url.startswith("sqlite") else "traces_by_label"
    by_model = "traces_with_usage" if label == "traces_newest" else label
    expected: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({}, ("traces_newest",)),
        ({"service_name": one.service}, ("traces_newest", label)),
        ({"service_name": "absent"}, (label,)),
        (
            {"service_name": one.service, "name": one.name},
            (label, "traces_newest", "traces_without_terms"),
        ),
        ({"service_name": "absent", "name": "absent"}, (label, "traces_without_terms")),
        ({"model": "absent"}, (by_model,)),
        ({"min_duration_ns": one.duration_ns}, ("traces_newest",)),
        ({"has_errors": True}, ("traces_with_errors",)),
        ({"session_id": named.session_id}, ("traces_by_session",)),
        ({"user_id": named.user_id}, ("traces_by_user",)),
        (window, ("traces_newest",)),
    ]
    by_attribute: list[dict[str, Any]] = [
        {"attributes": (NEVER,)},
        {"attributes": (NEVER,), **window},
        {"attributes": (NEVER, ("cache.hit", "true")), "service_name": one.service},
    ]
    wrong = []
    async with explaining(settings.database_url, analyze=analyze) as explainer:
        for wanted, allowed in expected:
            wrong += problems(str(wanted), await page_plan(explainer, **wanted), *allowed)

        for wanted in by_attribute:
            stretches, _, *pages = await all_plans(explainer, **wanted)
            if "start_ns" not in wanted:  # few filters are left of an hour
                wrong += problems(f"filters for {wanted}", stretches, *FILTER_KEYS)
            for page in pages[:-1]:
                wrong += problems(f"pages for {wanted}", page, "traces_newest", label)

        wrong += await problems_of_trace(explainer, TraceId(bytes.fromhex(one.trace_id)))
        await explainer.reader.get_stats(TENANT, TraceFilter(**window))
        wrong += problems("stats", explainer.take()[0], "traces_newest")

        await explainer.reader.list_services(TENANT)
        await explainer.reader.list_operations(TENANT, one.service)
        for plan in explainer.take():  # small enough to be read as a whole
            wrong += [f"list of operations: reads all of {table}" for table in plan.scans & TABLES]
            assert plan.indexes <= {"operations_pkey", "PRIMARY KEY"}

    return wrong


async def problems_of_trace(explainer: Explainer, trace_id: TraceId) -> list[str]:
    """Of a trace read as a whole, and of the same read like a large one."""
    await explainer.reader.get_trace(TENANT, trace_id)
    found = []
    for plan in explainer.take():
        allowed = ("traces_pkey", "sqlite_autoindex_traces_1", "model_usage_pkey", "PRIMARY KEY")
        found += problems("trace", plan, *allowed)
    outline = await explainer.reader.get_trace_or_outline(TENANT, trace_id, max_spans=0)
    assert isinstance(outline, TraceOutline)
    explainer.take()
    async for _ in explainer.reader.read_outlined(TENANT, trace_id, outline.places):
        pass
    return found + problems("chunk", explainer.take()[0], "spans_identity")
