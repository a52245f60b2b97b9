"""What a PostgreSQL database holds, without reading what is large."""

from __future__ import annotations

from msgtrace.settings.passwords import mask_password
from msgtrace.storage.postgres.partitions import estimated_rows
from msgtrace.storage.protocol import Maintenance, StorageStatus
from msgtrace.storage.reader import ReadSql
from msgtrace.storage.status import COUNTS, read_content

EXACT_MOST_BYTES = 64 * 2**20
"""With more bytes of summaries, counts come from the server's statistics."""

_SIZES = """
SELECT current_setting('server_version'), pg_database_size(current_database()),
    (SELECT max(number) FROM schema_migrations),
    pg_relation_size('traces'), pg_stat_get_live_tuples('traces'::regclass),
    (SELECT reltuples::bigint FROM pg_class WHERE oid = 'traces'::regclass),
    (SELECT relpages FROM pg_class WHERE oid = 'traces'::regclass)
"""


async def read_status(read: ReadSql, maintenance: Maintenance, url: str) -> StorageStatus:
    """See `StorageAdmin.get_status`."""
    [
        [(version, database_bytes, schema_version, heap_bytes, counted, analyzed, pages)]
    ] = await read([(_SIZES, ())])
    partitions = await maintenance.list_partitions()
    is_exact = heap_bytes <= EXACT_MOST_BYTES
    if is_exact:
        [[(trace_count, span_count)]] = await read([(COUNTS, ())])
    else:
        span_count = sum(each.rows for each in partitions)
        trace_count = estimated_rows(
            analyzed_rows=analyzed,
            analyzed_pages=pages,
            heap_bytes=heap_bytes,
            counted_rows=counted,
        )
    content = await read_content(read)
    return StorageStatus(
        backend="postgres",
        url=mask_password(url),
        server_version=f"PostgreSQL {version}",
        schema_version=schema_version,
        database_bytes=database_bytes,
        trace_count=trace_count,
        span_count=span_count,
        is_exact=is_exact,
        oldest_ns=content.oldest_ns,
        newest_ns=content.newest_ns,
        spans_per_s=content.spans_per_s,
        partitions=len(partitions),
        migrations=content.migrations,
        retention=content.retention,
    )
