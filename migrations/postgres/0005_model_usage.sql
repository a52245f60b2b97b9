-- 0005_model_usage (PostgreSQL; twin in sqlite/)
-- Why: tokens, cost, agents and tools of traces of generative AI; which of several nested statements counts; sums by model and day.
-- Cost: new columns have constant defaults (catalog only). The indexes are partial: they are built by one scan of traces, during which traces takes no
-- writes (about a second for a million traces), and afterwards cost nothing for a trace without models, tools or sessions.
-- Order: before the new code; the old code does not see what is new. Traces of before are brought up to it by `msgtrace-admin rebuild-summaries`.

-- aliases_version: of the alias table that the trace was summed up with. usage_count: its rows in model_usage.
-- has_usage stands in the condition of an index, where usage_count would make every write of a trace write all indexes.
ALTER TABLE traces
    ADD COLUMN cached_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN estimated_cost double precision NOT NULL DEFAULT 0,
    ADD COLUMN usage_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN aliases_version integer NOT NULL DEFAULT 0,
    ADD COLUMN has_usage boolean NOT NULL DEFAULT false,
    ADD COLUMN providers text[],
    ADD COLUMN operations text[],
    ADD COLUMN agents text[],
    ADD COLUMN tools text[];

-- What single spans state about tokens and cost. counts_tokens and counts_cost: whether the trace's sums hold it, or a nested span says the same.
CREATE TABLE model_usage (
    start_time_ns bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cost double precision,
    estimate double precision,
    tenant_id integer NOT NULL,
    is_model_call boolean NOT NULL,
    counts_tokens boolean NOT NULL,
    counts_cost boolean NOT NULL,
    trace_id bytea NOT NULL,
    span_id bytea NOT NULL,
    parent_span_id bytea,
    service_name text NOT NULL,
    model text,
    provider text,
    PRIMARY KEY (tenant_id, trace_id, span_id, start_time_ns)
);

-- Whoever deletes traces, by whatever way, deletes this as well. Once a statement: a bulk deletion stays one.
CREATE FUNCTION delete_model_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM model_usage USING deleted
    WHERE model_usage.tenant_id = deleted.tenant_id AND model_usage.trace_id = deleted.trace_id AND deleted.has_usage;
    RETURN NULL;
END $$;
CREATE TRIGGER delete_model_usage AFTER DELETE ON traces
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION delete_model_usage();

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
    started_at_ns bigint NOT NULL,
    trace_count bigint NOT NULL,
    tenant_id integer NOT NULL,
    trace_id bytea NOT NULL
);
