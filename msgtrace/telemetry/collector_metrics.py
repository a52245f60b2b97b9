"""The metrics of what comes in and what becomes of it.

Outcomes are accepted, rejected (some spans of a request), refused (a whole request), dropped (by
the sender), lost (never, or it is a bug). Counted per request and per flush, never per span.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.telemetry.metric_set import SECONDS, MetricSet, reason_of, total_of

FLUSH_SPANS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
FLUSH_BYTES = tuple(1024 * 4**n for n in range(9))
"""1 KiB to 64 MiB."""


class CollectorMetrics(MetricSet):
    """What comes in, and what becomes of it.

    Spans received are accepted, rejected, refused or spilled, or still wait. Spilled ones are
    accepted when they are drained. Accepted ones are stored or duplicates. The sums hold at any
    moment at which nothing is under way.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._declare_requests()
        self._declare_spans()
        self._declare_queue()
        self._declare_flushes()
        self._declare_dead_letters()

    def name_decoder(self, decoder: str) -> None:
        """Requests are decoded by `decoder`: python or native."""
        self._decoder.labels(decoder).set(1)

    def count_received(self, wire: str, encoding: str, body_bytes: int) -> None:
        """A request was read. body_bytes: its size as it came, still compressed."""
        self._requests_received.labels(wire, encoding).inc()
        self._received_bytes.labels(wire).inc(body_bytes)

    def count_decoded(self, wire: str, batch: SpanBatch) -> None:
        """A request was inflated and decoded."""
        self._inflated_bytes.labels(wire).inc(batch.body_bytes)
        self._spans_received.inc(len(batch.spans) + batch.rejected_spans)
        for rejection, count in batch.rejections.items():
            self.count_rejected(rejection, count)
        for action, count in batch.redacted.items():
            self._values_redacted.labels(action).inc(count)

    def count_acknowledged(self, wire: str, took_s: float) -> None:
        """A request was accepted, so long after its body was complete."""
        self._acknowledgement.labels(wire).observe(took_s)

    def count_refused(self, wire: str, error: BaseException) -> None:
        """A whole request gets an error for an answer."""
        self._requests_refused.labels(wire, reason_of(error)).inc()

    def count_spans_refused(self, spans: int) -> None:
        """Decoded spans were not stored."""
        self._spans_refused.inc(spans)

    def count_rejected(self, rejection: Rejection, spans: int) -> None:
        """Decoded spans were left out of their request."""
        self._spans_rejected.labels(rejection.label).inc(spans)

    def count_accepted(self, spans: int, new: int) -> None:
        """Spans were committed; `new` of them were not stored before."""
        self._spans_accepted.inc(spans)
        self._spans_stored.inc(new)
        self._spans_duplicate.inc(spans - new)

    def count_flush(self, *, spans: int, new: int, body_bytes: int, took_s: float) -> None:
        """A flush was committed; `new` of its spans were not stored before."""
        self.count_accepted(spans, new)
        self._flush_spans.observe(spans)
        self._flush_bytes.observe(body_bytes)
        self._commit.observe(took_s)

    def count_flush_refused(self, error: BaseException) -> None:
        """A flush was not committed."""
        self._flushes_refused.labels(reason_of(error)).inc()

    def count_dead_letter(self, error: BaseException, spans: int) -> None:
        """Spans that were refused with `error` are kept as a dead letter."""
        self._dead_letter_spans.labels(reason_of(error)).inc(spans)

    def set_dead_letters(self, letters: int, kept_bytes: int) -> None:
        """The dead letters of the database were summed up."""
        self._dead_letters.set(letters)
        self._dead_letter_bytes.set(kept_bytes)

    def set_dead_letter_limit(self, max_bytes: int) -> None:
        """How much of them is kept at most."""
        self._dead_letter_limit.set(max_bytes)

    def watch_queue(
        self,
        *,
        queued_requests: Callable[[], int],
        queued_bytes: Callable[[], int],
        age_s: Callable[[], float],
        max_bytes: int,
    ) -> None:
        """Read the queue whenever somebody asks for the metrics."""
        self._queue_requests.set_function(queued_requests)
        self._queue_bytes.set_function(queued_bytes)
        self._queue_age.set_function(age_s)
        self._queue_limit.set(max_bytes)

    def totals(self) -> dict[str, int]:
        """What a stopped collector says it did. `waiting` are requests without an answer."""
        return {
            "requests": total_of(self._requests_received),
            "spans_accepted": total_of(self._spans_accepted),
            "spans_stored": total_of(self._spans_stored),
            "spans_duplicate": total_of(self._spans_duplicate),
            "waiting": total_of(self._queue_requests),
        }

    def _declare_requests(self) -> None:
        self._decoder = self._gauge(
            "msgtrace_decoder_info", "Always 1; what decodes requests.", "decoder"
        )
        self._requests_received = self._counter(
            "msgtrace_requests_received_total",
            "Export requests whose body was read, by wire (grpc, http) and encoding.",
            "wire",
            "encoding",
        )
        self._requests_refused = self._counter(
            "msgtrace_requests_refused_total",
            "Export requests answered with an error, by its class.",
            "wire",
            "reason",
        )
        self._received_bytes = self._counter(
            "msgtrace_request_received_bytes_total",
            "Bytes of request bodies as they came, still compressed.",
            "wire",
        )
        self._inflated_bytes = self._counter(
            "msgtrace_request_inflated_bytes_total",
            "Bytes of decoded request bodies after inflating.",
            "wire",
        )
        self._acknowledgement = self._histogram(
            "msgtrace_acknowledgement_seconds",
            "Time from the last byte of a request to its durable storage.",
            "wire",
            buckets=SECONDS,
        )

    def _declare_spans(self) -> None:
        self._spans_received = self._counter("msgtrace_spans_received_total", "Spans decoded.")
        self._spans_accepted = self._counter(
            "msgtrace_spans_accepted_total", "Spans committed to the database or already in it."
        )
        self._spans_rejected = self._counter(
            "msgtrace_spans_rejected_total",
            "Spans left out of their request, by what is wrong with them.",
            "reason",
        )
        self._values_redacted = self._counter(
            "msgtrace_values_redacted_total",
            "Values of attributes that were dropped or hashed before they were stored, by action.",
            "action",
        )
        for rejection in Rejection:
            self._spans_rejected.labels(rejection.label)
        self._spans_refused = self._counter(
            "msgtrace_spans_refused_total", "Spans of requests refused after decoding."
        )
        self._spans_stored = self._counter(
            "msgtrace_spans_stored_total", "Accepted spans that were new."
        )
        self._spans_duplicate = self._counter(
            "msgtrace_spans_duplicate_total", "Accepted spans that were stored already."
        )

    def _declare_queue(self) -> None:
        self._queue_requests = self._gauge(
            "msgtrace_queue_requests", "Requests that wait for the database or are being written."
        )
        self._queue_bytes = self._gauge(
            "msgtrace_queue_bytes", "Bytes of the requests in the queue, inflated."
        )
        self._queue_limit = self._gauge(
            "msgtrace_queue_limit_bytes", "Bytes of the queue beyond which requests are refused."
        )
        self._queue_age = self._gauge(
            "msgtrace_queue_age_seconds", "How long the oldest request in the queue has waited."
        )

    def _declare_flushes(self) -> None:
        self._flush_spans = self._histogram(
            "msgtrace_flush_spans", "Spans in one committed flush.", buckets=FLUSH_SPANS
        )
        self._flush_bytes = self._histogram(
            "msgtrace_flush_bytes", "Request bytes in one committed flush.", buckets=FLUSH_BYTES
        )
        self._commit = self._histogram(
            "msgtrace_commit_seconds",
            "Time that a committed flush took the database.",
            buckets=SECONDS,
        )
        self._flushes_refused = self._counter(
            "msgtrace_flushes_refused_total",
            "Flushes that were not committed, by the class of the error.",
            "reason",
        )

    def _declare_dead_letters(self) -> None:
        self._dead_letter_spans = self._counter(
            "msgtrace_dead_letter_spans_total",
            "Spans that the database refused and that are kept as dead letters, by the class of"
            " the error.",
            "reason",
        )
        self._dead_letters = self._gauge(
            "msgtrace_dead_letters", "Dead letters in the database; looked at now and then."
        )
        self._dead_letter_bytes = self._gauge(
            "msgtrace_dead_letter_bytes", "Bytes that the dead letters in the database count for."
        )
        self._dead_letter_limit = self._gauge(
            "msgtrace_dead_letter_limit_bytes",
            "Bytes of dead letters beyond which no more are kept.",
        )


class SpillMetrics(MetricSet):
    """Requests that are kept on local disk while the database is away."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._spilled = self._counter(
            "msgtrace_spilled_requests_total",
            "Requests acknowledged from the spill, as the database was away.",
        )
        self._spans_spilled = self._counter(
            "msgtrace_spans_spilled_total", "Spans of the requests acknowledged from the spill."
        )
        self._drained = self._counter(
            "msgtrace_spill_drained_requests_total",
            "Requests that went from the spill into the database.",
        )
        self._requests = self._gauge(
            "msgtrace_spill_requests", "Requests in the spill that wait to be drained."
        )
        self._set_aside = self._gauge(
            "msgtrace_spill_set_aside_requests",
            "Requests in the spill that cannot be stored and wait for a person.",
        )
        self._bytes = self._gauge("msgtrace_spill_bytes", "Bytes of the requests in the spill.")
        self._limit = self._gauge(
            "msgtrace_spill_limit_bytes", "Bytes of the spill beyond which requests are refused."
        )
        self._age = self._gauge(
            "msgtrace_spill_oldest_age_seconds",
            "How long ago the oldest request came that waits to be drained.",
        )

    def count_spilled(self, spans: int) -> None:
        """A request was acknowledged from the spill."""
        self._spilled.inc()
        self._spans_spilled.inc(spans)

    def count_drained(self, requests: int) -> None:
        """Requests went from the spill into the database."""
        self._drained.inc(requests)

    def watch(
        self,
        *,
        requests: Callable[[], int],
        set_aside: Callable[[], int],
        payload_bytes: Callable[[], int],
        age_s: Callable[[], float],
        max_bytes: int,
    ) -> None:
        """Read the spill whenever somebody asks for the metrics."""
        self._requests.set_function(requests)
        self._set_aside.set_function(set_aside)
        self._bytes.set_function(payload_bytes)
        self._age.set_function(age_s)
        self._limit.set(max_bytes)

    def totals(self) -> dict[str, int]:
        """What a stopped collector adds to what it says. `in_spill` requests are drained later."""
        return {"requests_spilled": total_of(self._spilled), "in_spill": total_of(self._requests)}
