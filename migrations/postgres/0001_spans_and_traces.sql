-- 0001_spans_and_traces (PostgreSQL; twin in sqlite/)
-- Why: the first schema. Spans as OTLP sends them, one summary row a trace, resources and scopes once each.
-- Cost: creates empty tables.
-- Order: before the first start.

CREATE TABLE tenants (
    tenant_id integer PRIMARY KEY,
    name text NOT NULL UNIQUE
);
INSERT INTO tenants (tenant_id, name) VALUES (0, 'default');

-- resource_id and scope_id are 64-bit hashes of the content: the same content is the same row, whoever writes it.
CREATE TABLE resources (
    tenant_id integer NOT NULL,
    resource_id bigint NOT NULL,
    attributes json NOT NULL,
    dropped_attributes_count bigint,
    entity_refs json NOT NULL,
    schema_url text,
    PRIMARY KEY (tenant_id, resource_id)
);

CREATE TABLE scopes (
    tenant_id integer NOT NULL,
    scope_id bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    attributes json NOT NULL,
    dropped_attributes_count bigint,
    schema_url text,
    PRIMARY KEY (tenant_id, scope_id)
);

-- Columns stand widest first, so that no bytes go to alignment. NULL is OTLP's default (0, '', empty) and takes no space.
-- resource_id and scope_id are no foreign keys: rows of both are written before the spans, in the same transaction, and a check per span would cost ingest.
CREATE TABLE spans (
    start_time_ns bigint NOT NULL,
    end_time_ns bigint NOT NULL,
    resource_id bigint NOT NULL,
    scope_id bigint NOT NULL,
    flags bigint,
    dropped_attributes_count bigint,
    dropped_events_count bigint,
    dropped_links_count bigint,
    tenant_id integer NOT NULL,
    kind integer NOT NULL,
    status_code integer NOT NULL,
    trace_id bytea NOT NULL,
    span_id bytea NOT NULL,
    parent_span_id bytea,
    service_name text NOT NULL,
    name text NOT NULL,
    status_message text,
    trace_state text,
    attributes json,
    events json,
    links json
) PARTITION BY RANGE (start_time_ns);

-- What makes a resent span the same span.
CREATE UNIQUE INDEX spans_identity ON spans (tenant_id, trace_id, span_id, start_time_ns);
-- Lists services and their operations.
CREATE INDEX spans_by_service ON spans (tenant_id, service_name, start_time_ns);

-- Spans of clocks too far off to deserve a partition of a day.
CREATE TABLE spans_default PARTITION OF spans DEFAULT;

-- Whatever stands beside a *_start_ns column is what the earliest span said, so the order of arrival does not matter.
CREATE TABLE traces (
    start_time_ns bigint NOT NULL,
    end_time_ns bigint NOT NULL,
    duration_ns bigint NOT NULL GENERATED ALWAYS AS (end_time_ns - start_time_ns) STORED,
    span_count bigint NOT NULL,
    error_count bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost double precision NOT NULL,
    root_start_time_ns bigint NOT NULL,
    workflow_start_ns bigint,
    session_start_ns bigint,
    user_start_ns bigint,
    tenant_id integer NOT NULL,
    root_has_parent boolean NOT NULL,
    trace_id bytea NOT NULL,
    root_span_id bytea NOT NULL,
    root_span_name text NOT NULL,
    root_service_name text NOT NULL,
    workflow_name text,
    session_id text,
    user_id text,
    services text[] NOT NULL,
    models text[] NOT NULL,
    PRIMARY KEY (tenant_id, trace_id)
) WITH (fillfactor = 80);

-- The list, newest first, and its keyset.
CREATE INDEX traces_newest ON traces (tenant_id, start_time_ns DESC, trace_id DESC);
CREATE INDEX traces_with_errors ON traces (tenant_id, start_time_ns DESC, trace_id DESC) WHERE error_count > 0;
CREATE INDEX traces_by_session ON traces (tenant_id, session_id, start_time_ns DESC) WHERE session_id IS NOT NULL;
CREATE INDEX traces_by_user ON traces (tenant_id, user_id, start_time_ns DESC) WHERE user_id IS NOT NULL;

-- For people and dashboards: ids in hex, times as timestamptz (microseconds), numbers as words.
CREATE VIEW span_view AS
SELECT
    tenants.name AS tenant,
    encode(spans.trace_id, 'hex') AS trace_id,
    encode(spans.span_id, 'hex') AS span_id,
    encode(spans.parent_span_id, 'hex') AS parent_span_id,
    spans.service_name,
    spans.name,
    CASE spans.kind
        WHEN 0 THEN 'UNSPECIFIED' WHEN 1 THEN 'INTERNAL' WHEN 2 THEN 'SERVER'
        WHEN 3 THEN 'CLIENT' WHEN 4 THEN 'PRODUCER' WHEN 5 THEN 'CONSUMER' ELSE spans.kind::text
    END AS kind,
    CASE spans.status_code
        WHEN 0 THEN 'UNSET' WHEN 1 THEN 'OK' WHEN 2 THEN 'ERROR' ELSE spans.status_code::text
    END AS status,
    coalesce(spans.status_message, '') AS status_message,
    timestamptz 'epoch' + spans.start_time_ns / 1000 * interval '1 microsecond' AS start_time,
    timestamptz 'epoch' + spans.end_time_ns / 1000 * interval '1 microsecond' AS end_time,
    (spans.end_time_ns - spans.start_time_ns) / 1e6 AS duration_ms,
    spans.start_time_ns,
    spans.end_time_ns,
    coalesce(spans.trace_state, '') AS trace_state,
    coalesce(spans.flags, 0) AS flags,
    coalesce(spans.attributes, '{}') AS attributes,
    coalesce(spans.events, '[]') AS events,
    coalesce(spans.links, '[]') AS links,
    resources.attributes AS resource_attributes,
    scopes.name AS scope_name,
    scopes.version AS scope_version
FROM spans
JOIN tenants USING (tenant_id)
LEFT JOIN resources USING (tenant_id, resource_id)
LEFT JOIN scopes USING (tenant_id, scope_id);
