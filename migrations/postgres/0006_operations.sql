-- 0006_operations (PostgreSQL; twin in sqlite/)
-- Why: two lists, of services and of their operations, cost every span an entry in an index. A row for each operation serves them.
-- Cost: reads all spans once, beside readers and writers. Then spans is locked as a whole for the moment in which the index is dropped; whoever comes
-- meanwhile waits as long as the longest query that is under way.
-- Order: before the new code. The old code goes on, but its two lists read all spans, and what it writes is listed when the new code sees the like, or
-- after `msgtrace-admin rebuild-summaries --all`.

-- last_day: of the start of its newest span, counted from the epoch. -1: in doubt, while summaries are being rebuilt.
CREATE TABLE operations (
    tenant_id integer NOT NULL,
    kind integer NOT NULL,
    last_day integer NOT NULL,
    service_name text NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (tenant_id, service_name, name, kind)
);

-- Within the bounds that writers keep (msgtrace/storage/operations.py); the newest first.
INSERT INTO operations (tenant_id, service_name, name, kind, last_day)
SELECT tenant_id, service_name, name, kind, last_day FROM (
    SELECT *, row_number() OVER (PARTITION BY tenant_id, service_name ORDER BY last_day DESC, name, kind) AS place FROM (
        SELECT tenant_id, service_name, substr(name, 1, 255) AS name, kind, max(start_time_ns) / 86400000000000 AS last_day
        FROM spans GROUP BY 1, 2, 3, 4
    ) AS found
) AS placed
WHERE place <= 2000 ORDER BY place LIMIT 50000;

DROP INDEX spans_by_service;
