"""Render docs/metrics.md from the declared metrics. Run by `make docs`; tests/project compares."""

from __future__ import annotations

import sys

from msgtrace.telemetry.metric_set import Declaration
from msgtrace.telemetry.metrics import declarations

PAGE = """\
# Metrics

Rendered from `msgtrace/telemetry` by `make docs`.

`GET /metrics` answers in Prometheus' text format, on the collector's OTLP/HTTP port (4318) and on
the port of the query service (4321). `msgtrace start` shows all metrics on both. Beside these there
are `process_*`, about memory, processor time and open files.

| metric | type | labels | meaning |
|---|---|---|---|
{rows}

## What adds up

An outcome has one word everywhere. **Accepted** spans are committed. **Rejected** spans were left
out of a request whose other spans were accepted. A **refused** request gets an error for an answer.

- received = accepted + rejected + refused + those of requests that still wait
- accepted = stored + duplicate

`reason` of requests and flushes is the class of the error (`overloaded`, `storage_unavailable`,
`malformed_request`, …; `internal_error` is a fault of msgtrace). A request over gRPC that is larger
than `MSGTRACE_MAX_REQUEST_BYTES` is refused by gRPC itself and not counted.

## What to watch

| what | means |
|---|---|
{alarms}
"""

ALARMS = {
    "msgtrace_database_answers == 0": "the database is gone; senders are told to come back",
    "msgtrace_queue_bytes / msgtrace_queue_limit_bytes > 0.8": (
        "the database does not keep up; the collector is not ready"
    ),
    'rate(msgtrace_requests_refused_total{reason="overloaded"}[5m]) > 0': (
        "senders are turned away; they keep few batches and then drop spans"
    ),
    "rate(msgtrace_spans_rejected_total[5m]) > 0": (
        "a sender makes invalid spans, or the database refuses some; `reason` tells"
    ),
    "msgtrace_dead_letters > 0": (
        "the database refused spans for their data; `msgtrace-admin dead-letters` shows and"
        " replays them"
    ),
    "msgtrace_dead_letter_bytes / msgtrace_dead_letter_limit_bytes > 0.8": (
        "soon refused spans are not kept any more"
    ),
    "time() - msgtrace_retention_last_success_timestamp_seconds > 3600 and"
    " msgtrace_retention_enabled == 1": "old spans are not deleted, and the database grows",
    "histogram_quantile(0.99, rate(msgtrace_acknowledgement_seconds_bucket[5m])) > 0.2": (
        "senders wait long for their answers"
    ),
}


def render() -> str:
    """The whole page; the same on every machine."""
    return PAGE.format(
        rows="\n".join(_row(each) for each in declarations().values()),
        alarms="\n".join(f"| `{query}` | {meaning} |" for query, meaning in ALARMS.items()),
    )


def _row(metric: Declaration) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    meaning = metric.meaning.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.kind} | {labels} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(render())
