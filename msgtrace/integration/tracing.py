"""From the program's spans to one OTLP/HTTP endpoint.

Path: tracer provider → SpanTap → BatchSpanProcessor → SteadyExporter → OTLPSpanExporter.
The provider (see `provider`) is only listened to. It cannot lose a processor: what stays after a
stop is a tap that passes nothing on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import requests
import requests.adapters
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from msgtrace.integration.provider import find_provider, sdk_exports_to, silence

logger = logging.getLogger("msgtrace.integration")

EXPORT_DELAY_MS = 200
"""How long an ended span waits for others; what a killed program loses at most."""

MAX_EXPORT_CHARS = 16 * 2**20
"""Attribute text that one request takes: a char is at most 4 bytes, and exporter and server both
refuse a request over 64 MiB, with all its spans."""


class Telemetry:
    """Sends the spans of this process to `endpoint` from now on until it is stopped."""

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str] | None,
        service_name: str | None,
        names_platform: bool,
        ensure_running: Callable[[], None] | None,
    ) -> None:
        """endpoint: the URL of the trace path.

        ensure_running: called when a server on this machine does not answer.
        """
        self._provider = find_provider(service_name, names_platform)
        self._flusher = BoundedCall("msgtrace-flush")
        self._tap: SpanTap | None = None
        if sdk_exports_to(endpoint, self._provider):
            return
        self._exporter = SteadyExporter(endpoint, headers, ensure_running)
        self._batches = BatchSpanProcessor(self._exporter, schedule_delay_millis=_export_delay_ms())
        self._tap = SpanTap.of(self._provider)
        self._tap.open(self._batches)

    def flush(self, timeout_s: float) -> bool:
        """Export what has ended; False if that took longer, or if spans were lost meanwhile."""
        if self._tap is None:
            return self._flusher(self._provider.force_flush, timeout_s)
        if not self._tap.has_news:
            return True
        lost = self._exporter.lost_spans
        self._tap.has_news = False
        return (
            self._flusher(self._batches.force_flush, timeout_s)
            and lost == self._exporter.lost_spans
        )

    def stop(self, timeout_s: float) -> bool:
        """Flush, and send no more. Returns what flush does."""
        if self._tap is not None:
            self._tap.close()
        silence(self._provider)
        is_complete = self.flush(timeout_s)
        if self._tap is not None:
            # The exporter first: it gives up what it still tries. Who has waited waits no more.
            self._exporter.shutdown()
            self._flusher(self._batches.shutdown, timeout_s if is_complete else 0.0)
        self._flusher.close()
        return is_complete


class SpanTap(SpanProcessor):
    """Our one processor at a provider: open, it hands ended spans on; closed, it does nothing."""

    def __init__(self) -> None:
        self._batches: BatchSpanProcessor | None = None
        self.has_news = False
        """Whether a span has ended since somebody set this to False."""
        if hasattr(os, "register_at_fork"):
            itself = weakref.ref(self)

            def forget_news_of_parent() -> None:
                if (tap := itself()) is not None:
                    tap.has_news = False

            os.register_at_fork(after_in_child=forget_news_of_parent)

    @classmethod
    def of(cls, provider: TracerProvider) -> SpanTap:
        """The tap at this provider, added if there is none."""
        tap = _taps.get(provider)
        if tap is None:
            tap = _taps[provider] = cls()
            provider.add_span_processor(tap)
        return tap

    def open(self, batches: BatchSpanProcessor) -> None:
        """Hand ended spans to `batches`."""
        self._batches = batches

    def close(self) -> None:
        """Hand on nothing more."""
        self._batches = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is of interest before the end."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span; whatever fails costs the span and not the program."""
        batches = self._batches
        if batches is not None:
            self.has_news = True
            with contextlib.suppress(Exception):
                batches.on_end(span)

    def shutdown(self) -> None:
        """The provider shuts down: send the rest and close."""
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what has ended, as the provider's own flush promises."""
        batches = self._batches
        return batches is None or batches.force_flush(timeout_millis)


class SteadyExporter(SpanExporter):
    """OTLP/HTTP that sees to its server, bounds its requests, and tells once of an outage."""

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str] | None,
        ensure_running: Callable[[], None] | None,
    ) -> None:
        self._endpoint = endpoint
        self._headers = dict(headers) if headers else None
        self._ensure_running = ensure_running
        self._connect()
        self._is_out = False
        self._is_shut = False
        self.lost_spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans, in several requests if they are large."""
        results = [self._send(part) for part in _parts(spans)]
        is_out = any(result is not SpanExportResult.SUCCESS for result in results)
        if is_out and not self._is_out:
            logger.warning("spans cannot be sent to %s and are lost", self._endpoint)
        self._is_out = is_out
        return SpanExportResult.FAILURE if is_out else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Give up what is being tried. The processor asks for it again."""
        if not self._is_shut:
            self._is_shut = True
            self._otlp.shutdown()  # type: ignore[no-untyped-call]

    def _connect(self) -> None:
        self._pid = os.getpid()
        session = None
        if self._ensure_running is not None:
            session = requests.Session()
            session.trust_env = False  # no proxy stands before loopback
            session.mount("http://", LocalConnections(self._ensure_running))
        self._otlp = OTLPSpanExporter(self._endpoint, headers=self._headers, session=session)

    def _send(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            if self._pid != os.getpid():
                self._connect()  # a forked child must not write into its parent's connection
            result = self._otlp.export(spans)
        except Exception:
            logger.exception("an export failed")
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.lost_spans += len(spans)
        return result


class LocalConnections(requests.adapters.HTTPAdapter):
    """Connections to a server on this machine: one that has ended is started, and asked again."""

    def __init__(self, ensure_running: Callable[[], None]) -> None:
        super().__init__()
        self._ensure_running = ensure_running

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """The response. Raises as the base class does, if the second attempt fails too."""
        try:
            return super().send(request, *args, **kwargs)
        except requests.ConnectionError:
            self._ensure_running()
            return super().send(request, *args, **kwargs)


class BoundedCall:
    """Calls a function in a thread of its own, and waits no longer than told.

    The thread is made beforehand, also in a forked child, where no thread goes on: at its end an
    interpreter makes none any more.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_closed = False
        self._start()
        if hasattr(os, "register_at_fork"):
            itself = weakref.ref(self)

            def start_in_child() -> None:
                if (call := itself()) is not None and not call._is_closed:
                    call._start()

            os.register_at_fork(after_in_child=start_in_child)

    def __call__(self, function: Callable[[], object], timeout_s: float) -> bool:
        """Whether the function has returned within `timeout_s`."""
        done = threading.Event()
        self._calls.put((function, done))
        return done.wait(timeout_s)

    def close(self) -> None:
        """End the thread once the calls before are done."""
        self._is_closed = True
        self._calls.put(None)

    def _start(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], object], threading.Event] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(
            target=self._run, args=(self._calls,), name=self._name, daemon=True
        ).start()

    @staticmethod
    def _run(calls: queue.SimpleQueue[tuple[Callable[[], object], threading.Event] | None]) -> None:
        while (call := calls.get()) is not None:
            function, done = call
            try:
                function()
            except Exception:
                logger.exception("a flush failed")
            done.set()


_taps: weakref.WeakKeyDictionary[TracerProvider, SpanTap] = weakref.WeakKeyDictionary()


def _export_delay_ms() -> float:
    with contextlib.suppress(ValueError):
        return int(os.environ.get("OTEL_BSP_SCHEDULE_DELAY", ""))
    return EXPORT_DELAY_MS


def _parts(spans: Sequence[ReadableSpan]) -> Iterator[Sequence[ReadableSpan]]:
    """The spans in order, cut where a request would have too much text."""
    first, chars = 0, 0
    for index, span in enumerate(spans):
        more = _text_chars(span)
        if chars + more > MAX_EXPORT_CHARS and index > first:
            yield spans[first:index]
            first, chars = index, 0
        chars += more
    yield spans[first:]


def _text_chars(span: ReadableSpan) -> int:
    mappings = [span.attributes, *(event.attributes for event in span.events)]
    return sum(
        len(value)
        for mapping in mappings
        for value in (mapping or {}).values()
        if isinstance(value, str | bytes)
    )
