-- 0003_retention (PostgreSQL; twin in sqlite/)
-- Why: retention needs the expired spans of the default partition without reading it, and collectors tell each other when it last succeeded.
-- Cost: an empty table; the index locks spans_default against writes while it is built, a second for a million spans.
-- Order: before the new code; the old code does not see either.

-- One row at most. purged_before_ns: spans that start before it were deleted. purged_spans and purged_traces: sums of all runs.
CREATE TABLE retention_state (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    succeeded_at_ns bigint NOT NULL,
    purged_before_ns bigint NOT NULL,
    purged_spans bigint NOT NULL,
    purged_traces bigint NOT NULL
);

CREATE INDEX spans_default_by_start ON spans_default (start_time_ns);
