-- 0003_retention (SQLite; twin in postgres/)
-- Why: processes on one file tell each other when retention last succeeded.
-- Cost: an empty table.
-- Order: before the new code; the old code does not see it.

-- One row at most. purged_before_ns: spans that start before it were deleted. purged_spans and purged_traces: sums of all runs.
CREATE TABLE retention_state (
    is_only_row INT NOT NULL PRIMARY KEY DEFAULT 1 CHECK (is_only_row = 1), -- not INTEGER, which would number rows
    succeeded_at_ns INTEGER NOT NULL,
    purged_before_ns INTEGER NOT NULL,
    purged_spans INTEGER NOT NULL,
    purged_traces INTEGER NOT NULL
) STRICT;
