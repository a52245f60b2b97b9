"""The collector under test: one that the tests start, or any that the environment names.

MSGTRACE_CONFORMANCE_HTTP=http://host:4318, MSGTRACE_CONFORMANCE_GRPC=host:4317 and, to compare what
is stored, MSGTRACE_CONFORMANCE_QUERY=http://host:4321. What needs an address that is not given is
skipped.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.rebuild import SpanKey, sent_spans, shown_spans

TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Where to send and where to look; an address is empty if there is none."""

    http_url: str = ""
    grpc_target: str = ""
    query_url: str = ""

    @classmethod
    def of(cls, process: RunningProcess) -> Collector:
        return cls(
            http_url=process.otlp_url, grpc_target=process.grpc_target, query_url=process.url
        )

    def address(self, transport: str) -> tuple[str, int]:
        """Host and port of "http" or "grpc"; skips the test if it has none."""
        where = self.http_url.partition("://")[2] if transport == "http" else self.grpc_target
        if not where:
            pytest.skip(f"no address for {transport} was given")
        host, _, port = where.rstrip("/").rpartition(":")
        return host.strip("[]"), int(port)

    def get(self, path: str) -> Any:
        """The JSON of the query API, None where it has nothing; skips if there is no query API."""
        if not self.query_url:
            pytest.skip("what is stored is not compared: no query URL was given")
        # Without the proxies that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.query_url.rstrip("/") + path, timeout=TIMEOUT_S) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise

    def stores(self, expected: ExportTraceServiceRequest, *more_trace_ids: bytes) -> None:
        """Assert that the traces of `expected`, and `more_trace_ids`, hold exactly its spans."""
        if not self.query_url:
            return
        wanted = sent_spans(expected)
        trace_ids = {trace_id for trace_id, _, _ in wanted} | {
            each.hex() for each in more_trace_ids
        }
        found: dict[SpanKey, str] = {}
        for trace_id in trace_ids:
            trace = self.get(f"/api/v1/traces/{trace_id}")
            if trace is not None:
                shown = shown_spans(trace)
                assert trace["span_count"] == len(trace["spans"]) == len(shown)
                found |= shown
        assert found.keys() == wanted.keys()
        for key, span in wanted.items():
            assert found[key] == span


GIVEN = Collector(
    http_url=os.environ.get("MSGTRACE_CONFORMANCE_HTTP", ""),
    grpc_target=os.environ.get("MSGTRACE_CONFORMANCE_GRPC", ""),
    query_url=os.environ.get("MSGTRACE_CONFORMANCE_QUERY", ""),
)
"""Read here, because each test runs without the MSGTRACE_ variables of who runs it."""

IS_GIVEN = bool(GIVEN.http_url or GIVEN.grpc_target)


def needs_own_collector() -> NoReturn:
    """Skip what only a collector with settings of the tests can show."""
    pytest.skip("needs a collector that the tests configure")
