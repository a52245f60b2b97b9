"""msgtrace.integration.nesting, with an SDK that has the faults of msgtrace-sdk 1.2.

tests/packaging/with_msgflux has the real one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from msgtrace.integration.nesting import Repair


class Sdk:
    """The module `msgtrace.sdk.spans` and the spans that went through it."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = provider.get_tracer("sdk")
        module: Any = SimpleNamespace(tracer_manager=SimpleNamespace(tracer=self.tracer))
        self.module = module

        class Spans:
            @staticmethod
            @contextlib.contextmanager
            def init_module(module_name: str, **attributes: Any) -> Iterator[Any]:
                span = module.tracer_manager.tracer.start_span(module_name)
                yield span
                span.end()

            @staticmethod
            @contextlib.contextmanager
            def span_context(name: str, **attributes: Any) -> Iterator[Any]:
                with trace.use_span(
                    module.tracer_manager.tracer.start_span(name), end_on_exit=True
                ) as span:
                    yield span

            @staticmethod
            @contextlib.asynccontextmanager
            async def ainit_flow(flow_name: str, **attributes: Any) -> AsyncIterator[Any]:
                span = module.tracer_manager.tracer.start_span(flow_name)
                yield span
                span.end()

        module.Spans = Spans

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """Those that have ended, by name."""
        return {span.name: span for span in self._memory.get_finished_spans()}

    def parents(self) -> dict[str, str | None]:
        """The name of each span's parent."""
        names = {span.context.span_id: name for name, span in self.spans.items() if span.context}
        return {
            name: names[span.parent.span_id] if span.parent else None
            for name, span in self.spans.items()
        }


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Sdk:
    """It is installed, as far as imports can tell."""
    made = Sdk()
    package = ModuleType("msgtrace.sdk")
    package.__spec__ = ModuleSpec("msgtrace.sdk", None)
    monkeypatch.setitem(sys.modules, "msgtrace.sdk", package)
    monkeypatch.setitem(sys.modules, "msgtrace.sdk.spans", made.module)
    return made


@pytest.fixture
def repair(sdk: Sdk) -> Iterator[Repair]:
    repair = Repair()
    yield repair
    repair.undo()


def test_only_what_is_broken_is_replaced_and_trying_it_out_leaves_no_span(sdk: Sdk) -> None:
    before, submit = dict(vars(sdk.module.Spans)), ThreadPoolExecutor.submit
    repair = Repair()
    replaced = {name for name, now in vars(sdk.module.Spans).items() if now is not before[name]}
    repair.undo()

    assert replaced == {"init_module", "ainit_flow"}
    assert dict(vars(sdk.module.Spans)) == before
    assert ThreadPoolExecutor.submit is submit
    assert sdk.spans == {}


async def test_spans_are_parents_of_what_happens_inside_them(sdk: Sdk, repair: Repair) -> None:
    spans = sdk.module.Spans
    async with spans.ainit_flow("flow"):
        with spans.init_module("module", "agent"), ThreadPoolExecutor() as pool:
            pool.submit(lambda: sdk.tracer.start_span("in a thread").end()).result()

    assert sdk.parents() == {"flow": None, "module": "flow", "in a thread": "module"}


def test_a_thread_pool_outside_such_spans_is_as_ever(sdk: Sdk, repair: Repair) -> None:
    with sdk.tracer.start_as_current_span("of the program"), ThreadPoolExecutor() as pool:
        pool.submit(lambda: sdk.tracer.start_span("in a thread").end()).result()

    assert sdk.parents() == {"of the program": None, "in a thread": None}


def test_attributes_are_those_that_were_meant(sdk: Sdk, repair: Repair) -> None:
    with sdk.module.Spans.init_module("m", "agent", attributes={"mcp.operation": "call"}, more=1):
        pass
    with sdk.module.Spans.init_module(module_name="named"):
        pass

    assert dict(sdk.spans["m"].attributes or {}) == {
        "span.type": "module",
        "module.type": "agent",
        "mcp.operation": "call",
        "more": 1,
    }
    assert "named" in sdk.spans


@pytest.mark.parametrize("is_recorded_inside", [True, False])
def test_an_exception_is_recorded_once(sdk: Sdk, repair: Repair, is_recorded_inside: bool) -> None:
    error = ValueError("once")
    with contextlib.suppress(ValueError), sdk.module.Spans.init_module("failing") as span:
        if is_recorded_inside:
            span.record_exception(error)
            span.set_status(trace.Status(trace.StatusCode.ERROR, "once"))
        raise error

    failed = sdk.spans["failing"]
    assert [event.name for event in failed.events] == ["exception"]
    assert failed.status.status_code is trace.StatusCode.ERROR


def test_what_somebody_else_has_put_there_since_stays(sdk: Sdk) -> None:
    repair = Repair()
    sdk.module.Spans.init_module = later = staticmethod(contextlib.nullcontext)

    repair.undo()

    assert vars(sdk.module.Spans)["init_module"] is later
