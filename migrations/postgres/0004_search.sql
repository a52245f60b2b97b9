-- 0004_search (PostgreSQL; twin in sqlite/)
-- Why: lists by service and operation, by model and by attributes must not read the spans of every trace.
-- Cost: the column costs nothing; each index on `traces` blocks writes of it while it is built, together about two seconds for 500,000 traces.
-- Order: before the new code; the old code leaves the column NULL, which readers understand.

-- terms: 64-bit hashes of the names, and of the pairs of service and name, of the trace's spans (msgtrace/model/terms.py).
-- NULL: not known, or too many; the spans say it.
ALTER TABLE traces ADD COLUMN terms bigint[];

-- By service, operation and model, however rare.
CREATE INDEX traces_by_label ON traces USING gin (services, models, terms) WITH (gin_pending_list_limit = 256);
-- What the index above says nothing about.
CREATE INDEX traces_without_terms ON traces (tenant_id, start_time_ns DESC) WHERE terms IS NULL;

-- Which attributes certainly do not occur in the traces that start from first_ns to last_ns (msgtrace/storage/attribute_filters.py).
-- Rows of a tenant touch each other and do not overlap; the last one is open. NULL: anything may occur.
-- claimed_at_ns: since when somebody makes the filter of the row.
CREATE TABLE attribute_filters (
    first_ns bigint NOT NULL,
    last_ns bigint NOT NULL,
    claimed_at_ns bigint,
    tenant_id integer NOT NULL,
    filter bytea,
    PRIMARY KEY (tenant_id, first_ns)
);
-- Few bytes are read of each filter.
ALTER TABLE attribute_filters ALTER COLUMN filter SET STORAGE EXTERNAL;
-- How far filters reach, and which are to be made again.
CREATE INDEX attribute_filters_reach ON attribute_filters (tenant_id, last_ns) WHERE filter IS NOT NULL OR claimed_at_ns IS NOT NULL;
CREATE INDEX attribute_filters_missing ON attribute_filters (tenant_id, first_ns) WHERE filter IS NULL;

-- A trace that changes where filters are made already takes the filter away, whoever changes it and whatever their search_path.
CREATE FUNCTION forget_attribute_filters() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM changed WHERE start_time_ns <= (
            SELECT max(last_ns) FROM attribute_filters
            WHERE tenant_id = changed.tenant_id AND (filter IS NOT NULL OR claimed_at_ns IS NOT NULL)
        )
    ) THEN
        UPDATE attribute_filters SET filter = NULL, claimed_at_ns = NULL
        WHERE (tenant_id, first_ns) IN (
            SELECT place.tenant_id, place.first_ns FROM attribute_filters place
            WHERE (place.tenant_id, place.first_ns) IN (
                SELECT changed.tenant_id, (
                    SELECT max(near.first_ns) FROM attribute_filters near
                    WHERE near.tenant_id = changed.tenant_id AND near.first_ns <= changed.start_time_ns
                ) FROM changed
            ) AND (place.filter IS NOT NULL OR place.claimed_at_ns IS NOT NULL)
            ORDER BY place.tenant_id, place.first_ns FOR UPDATE
        );
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER traces_inserted AFTER INSERT ON traces
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_attribute_filters();
CREATE TRIGGER traces_updated AFTER UPDATE ON traces
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_attribute_filters();
