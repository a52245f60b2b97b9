"""What msgtrace.integration costs the program that it observes: to import, and a span.

Decides whether it may be left switched on. A span is started and ended with ten attributes, in
three set-ups that take turns: a provider without a processor, the standard batch processor and
OTLP/HTTP exporter, and quick_start. What the first one costs belongs to OpenTelemetry's SDK. Time
is that of the program's own thread; CPU is that of the whole process, so with the exporting thread.
Both exporters send to one msgtrace on SQLite in a process of its own.

python -m benchmarks.integration --spans 20000 --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from msgtrace.integration import quick_start

ATTRIBUTES: dict[str, str | int] = {f"key.{n}": f"value of {n}" for n in range(8)} | {
    "status": 200,
    "bytes": 12_345,
}
SPANS_A_SECOND = 2_000
"""Slower than the exporter, so that the queue, of 2048 spans, drops none."""

IMPORT = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one span, in microseconds."""

    thread_us: float
    cpu_us: float


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_imports(options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        print_spans(Path(folder), options.spans, options.rounds)


def print_imports(rounds: int) -> None:
    """CPU time of the import in a new interpreter, beside that of the SDK."""
    for statement in ("import msgtrace.integration", "import opentelemetry.sdk.trace"):
        command = [sys.executable, "-c", IMPORT.format(statement)]
        took = [float(subprocess.check_output(command)) for _ in range(2 * rounds + 1)]
        print(f"{statement:32} {1e3 * statistics.median(took):7.1f} ms")


def print_spans(folder: Path, spans: int, rounds: int) -> None:
    """What a span costs in each set-up, and what quick_start adds."""
    bare, standard, observed = (TracerProvider(shutdown_on_exit=False) for _ in range(3))
    trace.set_tracer_provider(observed)
    observer = quick_start(port=0, db_path=folder / "traces.db")
    exporter = OTLPSpanExporter(f"{observer.url}/v1/traces")
    batches = BatchSpanProcessor(exporter, schedule_delay_millis=200)
    standard.add_span_processor(batches)
    setups: dict[str, tuple[TracerProvider, Callable[[], object]]] = {
        "no processor": (bare, lambda: None),
        "batch processor, OTLP exporter": (standard, batches.force_flush),
        "quick_start": (observed, lambda: observer.flush(60)),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in setups}
    for number in range(rounds + 1):
        for name, (provider, flush) in setups.items():
            cost = measure(provider, flush, spans)
            if number > 0:  # the first round warms up
                costs[name].append(cost)
    standard.shutdown()
    observer.stop()
    medians = {name: median_of(each) for name, each in costs.items()}
    print(f"\n{'µs a span':32} {'thread':>8} {'CPU':>8}")
    for name, cost in medians.items():
        print(f"{name:32} {cost.thread_us:8.1f} {cost.cpu_us:8.1f}")
    sdk, usual, ours = medians.values()
    for name, base in (("quick_start adds to the SDK", sdk), ("and to the usual exporter", usual)):
        thread_us, cpu_us = ours.thread_us - base.thread_us, ours.cpu_us - base.cpu_us
        print(f"{name:32} {thread_us:8.1f} {cpu_us:8.1f}")


def measure(provider: TracerProvider, flush: Callable[[], object], spans: int) -> Cost:
    """Start and end the spans in bursts at a steady rate, then flush."""
    tracer = provider.get_tracer("benchmark")
    thread_ns, burst = 0, SPANS_A_SECOND // 20
    cpu_before = time.process_time_ns()
    for _ in range(spans // burst):
        began, began_cpu = time.monotonic(), time.thread_time_ns()
        for _ in range(burst):
            with tracer.start_as_current_span("GET /cart", attributes=ATTRIBUTES):
                pass
        thread_ns += time.thread_time_ns() - began_cpu
        time.sleep(max(0.0, 0.05 - (time.monotonic() - began)))
    flush()
    done = spans // burst * burst
    return Cost(thread_ns / done / 1e3, (time.process_time_ns() - cpu_before) / done / 1e3)


def median_of(costs: list[Cost]) -> Cost:
    """Of each figure by itself."""
    return Cost(
        statistics.median(cost.thread_us for cost in costs),
        statistics.median(cost.cpu_us for cost in costs),
    )


if __name__ == "__main__":
    main()
