-- 0003_trace_terms (PostgreSQL; twin in sqlite/)
-- Why: lists by service and operation, by model, and statistics of rare filters must not read the spans of every trace.
-- Cost: the column costs nothing; each index reads `traces` and blocks writes of it while it is built, about a second for 500,000 traces.
-- Order: before the new code; the old code leaves the column NULL, which readers understand.

-- terms: 64-bit hashes of the names, and of the pairs of service and name, of the trace's spans (msgtrace/model/terms.py).
-- NULL: not known, or too many; the spans say it.
ALTER TABLE traces ADD COLUMN terms bigint[];

-- By service, operation and model, however rare.
CREATE INDEX traces_by_label ON traces USING gin (services, models, terms) WITH (gin_pending_list_limit = 256);
-- What the index above says nothing about.
CREATE INDEX traces_without_terms ON traces (tenant_id, start_time_ns DESC) WHERE terms IS NULL;
