-- 0002_dead_letters (PostgreSQL; twin in sqlite/)
-- Why: what the database refuses for its data is kept here, to be looked at and replayed.
-- Cost: creates an empty table.
-- Order: before the new code; the old code does not see the table.

-- One row for each request with refused spans. letter_id is a hash of the request: the same request is the same letter.
-- span_ids are the refused spans: trace id (16 bytes) and span id (8), one after the other.
-- kept_bytes is what the letter counts for against MSGTRACE_MAX_DEAD_LETTER_BYTES.
-- payload is the request as it was sent, inflated; encoding says how to read it (protobuf or json).
CREATE TABLE dead_letters (
    refused_at_ns bigint NOT NULL,
    span_count bigint NOT NULL,
    kept_bytes bigint NOT NULL,
    tenant_id integer NOT NULL,
    letter_id bytea NOT NULL,
    encoding text NOT NULL,
    reason text NOT NULL,
    span_ids bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (tenant_id, letter_id)
);

-- The list, newest first, and its keyset.
CREATE INDEX dead_letters_newest ON dead_letters (tenant_id, refused_at_ns DESC, letter_id DESC);
-- Sums them up without reading them.
CREATE INDEX dead_letters_by_size ON dead_letters (kept_bytes);
