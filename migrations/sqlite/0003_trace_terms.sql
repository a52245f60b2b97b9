-- 0003_trace_terms (SQLite; twin in postgres/)
-- Why: lists by service and operation must not read the spans of every trace.
-- Cost: none.
-- Order: before the new code; the old code leaves the column NULL, which readers understand.

-- terms: 64-bit hashes, as a JSON array of texts, of the names, and of the pairs of service and name, of the trace's spans (msgtrace/model/terms.py).
-- NULL: not known, or too many; the spans say it.
ALTER TABLE traces ADD COLUMN terms TEXT;
