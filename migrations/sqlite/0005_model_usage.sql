-- 0005_model_usage (SQLite; twin in postgres/)
-- Why: tokens, cost, agents and tools of traces of generative AI; which of several nested statements counts; sums by model and day.
-- Cost: new columns have constant defaults (no rewrite). The indexes are partial: they are built by one scan of traces, and afterwards cost nothing for a
-- trace without models, tools or sessions.
-- Order: before the new code; the old code does not see what is new. Traces of before are brought up to it by `msgtrace-admin rebuild-summaries`.

-- aliases_version: of the alias table that the trace was summed up with. usage_count: its rows in model_usage.
-- providers, operations, agents and tools are sorted JSON arrays, NULL when empty.
ALTER TABLE traces ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN estimated_cost REAL NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN usage_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN aliases_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN has_usage INTEGER NOT NULL DEFAULT 0;
ALTER TABLE traces ADD COLUMN providers TEXT;
ALTER TABLE traces ADD COLUMN operations TEXT;
ALTER TABLE traces ADD COLUMN agents TEXT;
ALTER TABLE traces ADD COLUMN tools TEXT;

-- What single spans state about tokens and cost. counts_tokens and counts_cost: whether the trace's sums hold it, or a nested span says the same.
CREATE TABLE model_usage (
    tenant_id INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    start_time_ns INTEGER NOT NULL,
    parent_span_id BLOB,
    is_model_call INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost REAL,
    estimate REAL,
    counts_tokens INTEGER NOT NULL,
    counts_cost INTEGER NOT NULL,
    service_name TEXT NOT NULL,
    model TEXT,
    provider TEXT,
    PRIMARY KEY (tenant_id, trace_id, span_id, start_time_ns)
) STRICT, WITHOUT ROWID;

-- Whoever deletes traces, by whatever way, deletes this as well.
CREATE TRIGGER delete_model_usage AFTER DELETE ON traces WHEN old.has_usage
BEGIN
    DELETE FROM model_usage WHERE tenant_id = old.tenant_id AND trace_id = old.trace_id;
END;

-- The list by model, cost or tokens: only traces that have any are looked at.
CREATE INDEX traces_with_usage ON traces (tenant_id, start_time_ns DESC, trace_id DESC) WHERE has_usage;
-- The list by tool.
CREATE INDEX traces_with_tools ON traces (tenant_id, start_time_ns DESC, trace_id DESC) WHERE tools IS NOT NULL;
-- The list by workflow.
CREATE INDEX traces_by_workflow ON traces (tenant_id, workflow_name, start_time_ns DESC) WHERE workflow_name IS NOT NULL;
-- The list of sessions, by their newest traces.
CREATE INDEX traces_with_session ON traces (tenant_id, start_time_ns DESC, trace_id DESC) WHERE session_id IS NOT NULL;

-- Where `msgtrace-admin rebuild-summaries` goes on after an interruption: behind this trace.
CREATE TABLE summary_rebuild (
    started_at_ns INTEGER NOT NULL,
    trace_count INTEGER NOT NULL,
    tenant_id INTEGER NOT NULL,
    trace_id BLOB NOT NULL
) STRICT;
