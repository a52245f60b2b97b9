"""Make the spans of msgtrace-sdk parents of what happens inside them.

The SDK's context managers start spans and do not make them current: each msgflux module becomes a
trace of its own, and the second positional argument that msgflux gives to `init_module` raises
TypeError. Each manager is tried out, and replaced where it behaves like that; one that works is
left alone. Work that such a span hands to a thread pool is given the span as its parent.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import importlib.util
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

_WITHIN_SDK_SPAN = context.create_key("msgtrace-sdk-span")

# Name → the manager's first parameter, the kind of its spans, their span.type.
_MANAGERS: dict[str, tuple[str, SpanKind, str | None]] = {
    "span_context": ("name", SpanKind.INTERNAL, None),
    "init_flow": ("flow_name", SpanKind.SERVER, "flow"),
    "init_module": ("module_name", SpanKind.INTERNAL, "module"),
}
_TAKES_TYPE = "init_module"


class Repair:
    """The replacements that this process has made, to be undone."""

    def __init__(self) -> None:
        """Replace what is broken in msgtrace-sdk, if that is installed."""
        self._undo: list[Callable[[], None]] = []
        if not _is_installed("msgtrace.sdk"):
            return
        sdk: Any = importlib.import_module("msgtrace.sdk.spans")
        for name in _MANAGERS:
            for each, is_async in ((name, False), (f"a{name}", True)):
                if hasattr(sdk.Spans, each) and not _nests(sdk, each, is_async):
                    self._replace(sdk.Spans, each, staticmethod(_manager(sdk, name, is_async)))
        if self._undo:
            pool = concurrent.futures.ThreadPoolExecutor
            self._replace(pool, "submit", _submit_with_parent(pool.submit))

    def undo(self) -> None:
        """Put back what was there, unless somebody has replaced it since."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, owner: type, name: str, replacement: Any) -> None:
        original = owner.__dict__[name]
        setattr(owner, name, replacement)

        def put_back() -> None:
            if owner.__dict__.get(name) is replacement:
                setattr(owner, name, original)

        self._undo.append(put_back)


def load_sdk() -> None:
    """Let msgtrace-sdk, if it is installed, set the provider that its variables ask for."""
    if _is_installed("msgtrace.sdk"):
        importlib.import_module("msgtrace.sdk")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _manager(sdk: Any, name: str, is_async: bool) -> Callable[..., Any]:
    name_parameter, kind, span_type = _MANAGERS[name]

    @contextlib.contextmanager
    def manager(*positional: Any, **attributes: Any) -> Iterator[Span]:
        title, *types = positional or (attributes.pop(name_parameter),)
        span = sdk.tracer_manager.tracer.start_span(title, kind=kind)
        span.set_attributes(_attributes(span_type, types, attributes))
        with _current(span):
            yield span

    @contextlib.asynccontextmanager
    async def async_manager(*positional: Any, **attributes: Any) -> AsyncIterator[Span]:
        with manager(*positional, **attributes) as span:
            yield span

    return async_manager if is_async else manager


def _attributes(span_type: str | None, types: list[Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the span is given. A keyword `attributes` with a mapping holds attributes itself."""
    nested = given.get("attributes")
    if isinstance(nested, dict):
        given = {**given, **nested}
        del given["attributes"]
    found = {} if span_type is None else {"span.type": span_type}
    if types:
        found["module.type"] = types[0]
    return found | given


@contextlib.contextmanager
def _current(span: Span) -> Iterator[None]:
    """Make the span current, end it, and record an exception that nobody has recorded in it."""
    within = context.set_value(_WITHIN_SDK_SPAN, True, trace.set_span_in_context(span))
    token = context.attach(within)
    try:
        yield
    except Exception as error:
        if not _is_error(span):
            span.set_status(Status(StatusCode.ERROR, str(error)))
            span.record_exception(error)
        raise
    finally:
        context.detach(token)
        span.end()


def _is_error(span: Any) -> bool:
    status = getattr(span, "status", None)
    return status is not None and status.status_code is StatusCode.ERROR


def _submit_with_parent(submit: Callable[..., Any]) -> Callable[..., Any]:
    """`ThreadPoolExecutor.submit` that carries the context of an SDK span into the thread.

    For the class, because msgflux uses a pool of its own and the default pool of each event loop.
    """

    @functools.wraps(submit)
    def submit_with_parent(
        self: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        current = context.get_current()
        if _WITHIN_SDK_SPAN not in current:
            return submit(self, function, *args, **kwargs)
        return submit(self, _call_within, current, function, *args, **kwargs)

    return submit_with_parent


def _call_within(
    parent: context.Context, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    token = context.attach(parent)
    try:
        return function(*args, **kwargs)
    finally:
        context.detach(token)


def _nests(sdk: Any, name: str, is_async: bool) -> bool:
    """Whether the manager makes its span current, and takes a type if it is to."""
    arguments = ("probe", "probe") if name.endswith(_TAKES_TYPE) else ("probe",)
    with _probing(sdk):
        try:
            manager = getattr(sdk.Spans, name)(*arguments)
            return _afirst(manager) if is_async else _first(manager)
        except TypeError:
            return False


def _first(manager: contextlib.AbstractContextManager[Span]) -> bool:
    with manager as span:
        return trace.get_current_span() is span


def _afirst(manager: contextlib.AbstractAsyncContextManager[Span]) -> bool:
    """The same of an asynchronous manager, without an event loop: the SDK's await nothing."""

    async def enter() -> bool:
        async with manager as span:
            return trace.get_current_span() is span

    running = enter()
    try:
        running.send(None)
    except StopIteration as stop:
        return bool(stop.value)
    running.close()
    return True  # it waits for something: not the manager that is known to be broken


@contextlib.contextmanager
def _probing(sdk: Any) -> Iterator[None]:
    """Spans that this thread starts through the SDK go nowhere meanwhile."""
    real, prober = sdk.tracer_manager, threading.get_ident()
    silent = TracerProvider(shutdown_on_exit=False).get_tracer("probe")

    class TracerManager:
        @property
        def tracer(self) -> Any:
            return silent if threading.get_ident() == prober else real.tracer

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    sdk.tracer_manager = TracerManager()
    try:
        yield
    finally:
        sdk.tracer_manager = real
