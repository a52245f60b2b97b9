"""What a SQLite file holds, without reading more than summaries."""

from __future__ import annotations

import sqlite3

from msgtrace.storage.protocol import StorageStatus
from msgtrace.storage.reader import ReadSql
from msgtrace.storage.status import COUNTS, read_content

EXACT_MOST_BYTES = 256 * 2**20
"""The summaries of a larger file are not all read; its spans are then known by their numbers."""

_SIZE = """
SELECT page_count * page_size, (SELECT max(number) FROM schema_migrations)
FROM pragma_page_count, pragma_page_size
"""

# Row numbers go up and purges delete the lowest: what lies between is nearly all there.
_ESTIMATE = """
SELECT (SELECT count(*) FROM traces),
    coalesce((SELECT max(rowid) FROM spans) - (SELECT min(rowid) FROM spans) + 1, 0)
"""


async def read_status(read: ReadSql, url: str) -> StorageStatus:
    """See `StorageAdmin.get_status`."""
    [[(database_bytes, schema_version)]] = await read([(_SIZE, ())])
    is_exact = database_bytes <= EXACT_MOST_BYTES
    [[(trace_count, span_count)]] = await read([(COUNTS if is_exact else _ESTIMATE, ())])
    content = await read_content(read)
    return StorageStatus(
        backend="sqlite",
        url=url,
        server_version=f"SQLite {sqlite3.sqlite_version}",
        schema_version=schema_version,
        database_bytes=database_bytes,
        trace_count=trace_count,
        span_count=span_count,
        is_exact=is_exact,
        oldest_ns=content.oldest_ns,
        newest_ns=content.newest_ns,
        spans_per_s=content.spans_per_s,
        partitions=0,
        migrations=content.migrations,
        retention=content.retention,
    )
