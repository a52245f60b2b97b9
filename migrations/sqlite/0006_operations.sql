-- 0006_operations (SQLite; twin in postgres/)
-- Why: two lists, of services and of their operations, cost every span an entry in an index. A row for each operation serves them.
-- Cost: reads all spans once, while no one else writes. The space of the index is used by what comes next.
-- Order: before the new code; the old code's two lists would read all spans.

-- last_day: of the start of its newest span, counted from the epoch. -1: in doubt, while summaries are being rebuilt.
CREATE TABLE operations (
    tenant_id INTEGER NOT NULL,
    service_name TEXT NOT NULL,
    name TEXT NOT NULL,
    kind INTEGER NOT NULL,
    last_day INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, service_name, name, kind)
) STRICT, WITHOUT ROWID;

-- Not GROUP BY, which would sort all spans: four times as slow.
INSERT INTO operations (tenant_id, service_name, name, kind, last_day)
SELECT tenant_id, service_name, substr(name, 1, 255), kind, start_time_ns / 86400000000000 FROM spans WHERE true
ON CONFLICT DO UPDATE SET last_day = excluded.last_day WHERE last_day < excluded.last_day;

-- Within the bounds that writers keep (msgtrace/storage/operations.py); the newest stay.
WITH placed AS (
    SELECT *, row_number() OVER (PARTITION BY tenant_id, service_name ORDER BY last_day DESC, name, kind) AS place FROM operations
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY place) AS number FROM placed
)
DELETE FROM operations WHERE (tenant_id, service_name, name, kind) IN (
    SELECT tenant_id, service_name, name, kind FROM numbered WHERE place > 2000 OR number > 50000
);

DROP INDEX spans_by_service;
