-- 0004_search (SQLite; twin in postgres/)
-- Why: lists by service and operation, and by attributes, must not read the spans of every trace.
-- Cost: none.
-- Order: before the new code; the old code leaves the column NULL, which readers understand.

-- terms: 64-bit hashes, as a JSON array of texts, of the names, and of the pairs of service and name, of the trace's spans (msgtrace/model/terms.py).
-- NULL: not known, or too many; the spans say it.
ALTER TABLE traces ADD COLUMN terms TEXT;

-- Which attributes certainly do not occur in the traces that start from first_ns to last_ns (msgtrace/storage/attribute_filters.py).
-- Rows of a tenant touch each other and do not overlap; the last one is open. NULL: anything may occur.
-- claimed_at_ns: since when somebody makes the filter of the row.
CREATE TABLE attribute_filters (
    tenant_id INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    claimed_at_ns INTEGER,
    filter BLOB,
    PRIMARY KEY (tenant_id, first_ns)
) STRICT;
-- How far filters reach, and which are to be made again.
CREATE INDEX attribute_filters_reach ON attribute_filters (tenant_id, last_ns) WHERE filter IS NOT NULL OR claimed_at_ns IS NOT NULL;
CREATE INDEX attribute_filters_missing ON attribute_filters (tenant_id, first_ns) WHERE filter IS NULL;

-- A trace that changes where filters are made already takes the filter away, whoever changes it.
CREATE TRIGGER traces_inserted AFTER INSERT ON traces
WHEN NEW.start_time_ns <= (
    SELECT max(last_ns) FROM attribute_filters
    WHERE tenant_id = NEW.tenant_id AND (filter IS NOT NULL OR claimed_at_ns IS NOT NULL)
)
BEGIN
    UPDATE attribute_filters SET filter = NULL, claimed_at_ns = NULL
    WHERE tenant_id = NEW.tenant_id AND first_ns = (
        SELECT max(first_ns) FROM attribute_filters
        WHERE tenant_id = NEW.tenant_id AND first_ns <= NEW.start_time_ns
    ) AND (filter IS NOT NULL OR claimed_at_ns IS NOT NULL);
END;
CREATE TRIGGER traces_updated AFTER UPDATE ON traces
WHEN NEW.start_time_ns <= (
    SELECT max(last_ns) FROM attribute_filters
    WHERE tenant_id = NEW.tenant_id AND (filter IS NOT NULL OR claimed_at_ns IS NOT NULL)
)
BEGIN
    UPDATE attribute_filters SET filter = NULL, claimed_at_ns = NULL
    WHERE tenant_id = NEW.tenant_id AND first_ns = (
        SELECT max(first_ns) FROM attribute_filters
        WHERE tenant_id = NEW.tenant_id AND first_ns <= NEW.start_time_ns
    ) AND (filter IS NOT NULL OR claimed_at_ns IS NOT NULL);
END;
