-- 0001_spans_and_traces (SQLite; twin in postgres/)
-- Why: the first schema. Spans as OTLP sends them, one summary row a trace, resources and scopes once each.
-- Cost: creates empty tables.
-- Order: before the first start.

CREATE TABLE tenants (
    tenant_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO tenants (tenant_id, name) VALUES (0, 'default');

-- resource_id and scope_id are 64-bit hashes of the content: the same content is the same row, whoever writes it.
CREATE TABLE resources (
    tenant_id INTEGER NOT NULL,
    resource_id INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    dropped_attributes_count INTEGER,
    entity_refs TEXT NOT NULL,
    schema_url TEXT,
    PRIMARY KEY (tenant_id, resource_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE scopes (
    tenant_id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    attributes TEXT NOT NULL,
    dropped_attributes_count INTEGER,
    schema_url TEXT,
    PRIMARY KEY (tenant_id, scope_id)
) STRICT, WITHOUT ROWID;

-- NULL is OTLP's default (0, '', empty) and takes no space.
CREATE TABLE spans (
    tenant_id INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    parent_span_id BLOB,
    start_time_ns INTEGER NOT NULL,
    end_time_ns INTEGER NOT NULL,
    resource_id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    status_code INTEGER NOT NULL,
    flags INTEGER,
    dropped_attributes_count INTEGER,
    dropped_events_count INTEGER,
    dropped_links_count INTEGER,
    service_name TEXT NOT NULL,
    name TEXT NOT NULL,
    status_message TEXT,
    trace_state TEXT,
    attributes TEXT,
    events TEXT,
    links TEXT
) STRICT;

-- What makes a resent span the same span.
CREATE UNIQUE INDEX spans_identity ON spans (tenant_id, trace_id, span_id, start_time_ns);
-- Lists services and their operations.
CREATE INDEX spans_by_service ON spans (tenant_id, service_name, start_time_ns);

-- Whatever stands beside a *_start_ns column is what the earliest span said, so the order of arrival does not matter.
-- services and models are sorted JSON arrays.
CREATE TABLE traces (
    tenant_id INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    start_time_ns INTEGER NOT NULL,
    end_time_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL GENERATED ALWAYS AS (end_time_ns - start_time_ns) VIRTUAL,
    span_count INTEGER NOT NULL,
    error_count INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost REAL NOT NULL,
    root_has_parent INTEGER NOT NULL,
    root_start_time_ns INTEGER NOT NULL,
    root_span_id BLOB NOT NULL,
    root_span_name TEXT NOT NULL,
    root_service_name TEXT NOT NULL,
    workflow_start_ns INTEGER,
    workflow_name TEXT,
    session_start_ns INTEGER,
    session_id TEXT,
    user_start_ns INTEGER,
    user_id TEXT,
    services TEXT NOT NULL,
    models TEXT NOT NULL,
    PRIMARY KEY (tenant_id, trace_id)
) STRICT;

-- The list, newest first, and its keyset.
CREATE INDEX traces_newest ON traces (tenant_id, start_time_ns DESC, trace_id DESC);
CREATE INDEX traces_with_errors ON traces (tenant_id, start_time_ns DESC, trace_id DESC) WHERE error_count > 0;
CREATE INDEX traces_by_session ON traces (tenant_id, session_id, start_time_ns DESC) WHERE session_id IS NOT NULL;
CREATE INDEX traces_by_user ON traces (tenant_id, user_id, start_time_ns DESC) WHERE user_id IS NOT NULL;

-- For people: ids in hex, times as text in UTC (milliseconds), numbers as words.
CREATE VIEW span_view AS
SELECT
    tenants.name AS tenant,
    lower(hex(spans.trace_id)) AS trace_id,
    lower(hex(spans.span_id)) AS span_id,
    CASE WHEN spans.parent_span_id IS NOT NULL THEN lower(hex(spans.parent_span_id)) END AS parent_span_id,
    spans.service_name,
    spans.name,
    CASE spans.kind
        WHEN 0 THEN 'UNSPECIFIED' WHEN 1 THEN 'INTERNAL' WHEN 2 THEN 'SERVER'
        WHEN 3 THEN 'CLIENT' WHEN 4 THEN 'PRODUCER' WHEN 5 THEN 'CONSUMER' ELSE CAST(spans.kind AS TEXT)
    END AS kind,
    CASE spans.status_code
        WHEN 0 THEN 'UNSET' WHEN 1 THEN 'OK' WHEN 2 THEN 'ERROR' ELSE CAST(spans.status_code AS TEXT)
    END AS status,
    coalesce(spans.status_message, '') AS status_message,
    strftime('%Y-%m-%dT%H:%M:%fZ', spans.start_time_ns / 1e9, 'unixepoch') AS start_time,
    strftime('%Y-%m-%dT%H:%M:%fZ', spans.end_time_ns / 1e9, 'unixepoch') AS end_time,
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
