"""What processes on one database tell each other about its retention: the same SQL everywhere."""

from __future__ import annotations

from msgtrace.model.maintenance import Purged, RetentionState
from msgtrace.storage.reader import ReadSql, Statement

_GET = """
SELECT succeeded_at_ns, purged_before_ns, purged_spans, purged_traces FROM retention_state
"""

_PUT = """
INSERT INTO retention_state (succeeded_at_ns, purged_before_ns, purged_spans, purged_traces)
VALUES (?, ?, ?, ?)
ON CONFLICT (is_only_row) DO UPDATE SET
    succeeded_at_ns = excluded.succeeded_at_ns,
    purged_before_ns = CASE WHEN excluded.purged_before_ns > retention_state.purged_before_ns
        THEN excluded.purged_before_ns ELSE retention_state.purged_before_ns END,
    purged_spans = retention_state.purged_spans + excluded.purged_spans,
    purged_traces = retention_state.purged_traces + excluded.purged_traces
"""


async def read_state(read: ReadSql) -> RetentionState:
    """What was last recorded; zeros if nothing was."""
    [rows] = await read([(_GET, ())])
    if not rows:
        return RetentionState()
    succeeded_at_ns, purged_before_ns, purged_spans, purged_traces = rows[0]
    return RetentionState(
        succeeded_at_ns=succeeded_at_ns,
        purged_before_ns=purged_before_ns,
        purged_spans=purged_spans,
        purged_traces=purged_traces,
    )


def state_statement(purged: Purged, *, before_ns: int, now_ns: int) -> Statement:
    """Add a run to what is recorded."""
    return _PUT, (now_ns, before_ns, purged.spans, purged.traces)
