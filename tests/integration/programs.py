"""Programs of users, one a function, each run in a process of its own: see runs.py.

Plain OpenTelemetry and msgtrace.integration, nothing else. What a test wants to know they print.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from msgtrace.integration import configure_msgflux_telemetry, quick_start, start_observer


def span(name: str) -> None:
    """One span, at once ended."""
    with trace.get_tracer("program").start_as_current_span(name):
        pass


def say(*what: object) -> None:
    sys.stdout.write(" ".join(map(str, what)) + "\n")
    sys.stdout.flush()


def wait_for_line() -> str:
    """What the test writes, once it does."""
    return sys.stdin.readline().strip()


def ends_without_stop(port: str, database: str) -> None:
    quick_start(int(port), database)
    span("last")


def raises(port: str, database: str) -> None:
    quick_start(int(port), database)
    span("last")
    raise RuntimeError("of the program")


def exits(port: str, database: str) -> None:
    quick_start(int(port), database)
    span("last")
    sys.exit(3)


def exits_at_once(port: str, database: str) -> None:
    quick_start(int(port), database)
    span("last")
    os._exit(4)


def is_interrupted(port: str, database: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    quick_start(int(port), database)
    span("last")
    say("ready")
    time.sleep(60)


def is_killed(port: str, database: str) -> None:
    quick_start(int(port), database)
    span("long ago")
    time.sleep(1.5)
    os.kill(os.getpid(), signal.SIGKILL)


def stops(port: str, database: str) -> None:
    with quick_start(int(port), database) as observer:
        assert observer.url == f"http://127.0.0.1:{port}"
        span("inside")
        assert observer.flush()
        assert quick_start(int(port), database) is observer
    observer.stop()
    assert not observer.is_recording
    assert os._exit.__module__ == "posix"
    assert not trace.get_tracer("program").start_span("between").is_recording()
    again = quick_start(int(port), database)
    assert again is not observer
    span("again")


def listens_to_the_provider_that_is_set(port: str, database: str) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    for name in ("first", "second"):
        with quick_start(int(port), database):
            assert trace.get_tracer_provider() is provider
            span(name)
        span("for the provider alone")
    quick_start(int(port), database)
    span("third")
    provider.shutdown()
    say(len(memory.get_finished_spans()))


def records_later(port: str, database: str) -> None:
    observer = start_observer(int(port), database)
    span("before")
    assert configure_msgflux_telemetry(server=observer, service_name="later") is observer
    span("after")


def forks(port: str, database: str) -> None:
    observer = quick_start(int(port), database)
    span("parent before")
    if (child := os.fork()) == 0:
        span("child")
        sys.exit(0)
    os.waitpid(child, 0)
    if (stopper := os.fork()) == 0:
        span("child that stops")
        observer.stop()
        os._exit(0)
    os.waitpid(stopper, 0)
    worker = multiprocessing.get_context("fork").Process(target=span, args=("worker",))
    worker.start()
    worker.join()
    span("parent after")
    say(observer.flush())


def leaves_a_child(port: str, database: str) -> None:
    quick_start(int(port), database)
    if os.fork() == 0:
        time.sleep(1)
        span("survivor")
        sys.exit(0)
    span("parent")


def sends_in_two_goes(port: str, database: str) -> None:
    observer = quick_start(int(port), database)
    say("ready" if observer.is_recording else "not recording")
    span("first go")
    observer.flush()
    flush_timeout_s = float(wait_for_line())
    started = time.monotonic()
    for _ in range(100):
        span("second go")
    stalled_s = time.monotonic() - started
    say(f"{stalled_s:.3f}", observer.flush(flush_timeout_s))
    wait_for_line()


def sends_to(endpoint: str) -> None:
    observer = configure_msgflux_telemetry(endpoint=endpoint, headers={"x-key": "secret"})
    span("far away")
    say(observer.flush(1.0))


def works_without_observer(port: str, database: str) -> None:
    observer = quick_start(int(port), database)
    say(observer.is_recording)
    span("nowhere")
    say(observer.flush())
    observer.stop()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
