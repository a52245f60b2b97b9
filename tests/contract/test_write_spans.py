from __future__ import annotations

import pytest

from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.storage.protocol import Storage
from tests.batches import TRACE_A, make_batch, span


@pytest.mark.parametrize("n", range(5))
async def test_a_resent_batch_is_stored_once(storage: Storage, n: int) -> None:
    batch = make_batch(span(name="root"), span(name="child"))

    assert await storage.write_spans([batch]) == 2
    assert await storage.write_spans([batch]) == 0

    trace = await storage.get_trace(DEFAULT_TENANT, TRACE_A)
    assert trace is not None
    assert sorted(span.name for span in trace.spans) == ["child", "root"]
