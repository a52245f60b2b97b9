"""What the doctor looks at in a PostgreSQL server."""

from __future__ import annotations

import time

from msgtrace.model.maintenance import Finding, ok, problem, warning
from msgtrace.model.units import NS_PER_DAY, NS_PER_S
from msgtrace.storage.migrate import expected_indexes
from msgtrace.storage.postgres.connection import OLDEST_VERSION, PlainConnection
from msgtrace.storage.postgres.partitions import DAYS_AHEAD, DAYS_BACK, list_day_partitions

CLOCK_WARNING_S = 1.0
CLOCK_PROBLEM_S = 60.0

DEFAULT_ROWS = 100_000
"""With more spans in the default partition, each new day's partition takes noticeably long."""

_OWN_CONNECTIONS = 2
"""Of a collector beside its pools: of maintenance and of the readiness check."""

_INDEXES = """
SELECT class.relname AS name, index.indrelid::regclass::text AS table_name, index.indisvalid
FROM pg_index index JOIN pg_class class ON class.oid = index.indexrelid
JOIN pg_class owner ON owner.oid = index.indrelid
WHERE owner.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'spans'::regclass)
"""

# A partition lacks an index of the whole table if fewer of its indexes are attached to one.
_BARE_PARTITIONS = """
SELECT part.inhrelid::regclass::text AS name FROM pg_inherits part
WHERE part.inhparent = 'spans'::regclass AND
    (SELECT count(*) FROM pg_index own
     JOIN pg_inherits attached ON attached.inhrelid = own.indexrelid
     WHERE own.indrelid = part.inhrelid AND own.indisvalid)
    < (SELECT count(*) FROM pg_index whole WHERE whole.indrelid = 'spans'::regclass)
ORDER BY 1
"""

_RIGHTS = """
SELECT
    pg_has_role((SELECT relowner FROM pg_class WHERE oid = 'spans'::regclass), 'USAGE') AS owns,
    has_schema_privilege(
        (SELECT relnamespace FROM pg_class WHERE oid = 'spans'::regclass), 'CREATE'
    ) AS creates,
    has_database_privilege(current_database(), 'TEMPORARY') AS makes_temporary,
    ARRAY(
        SELECT name FROM unnest(
            ARRAY['spans', 'traces', 'operations', 'resources', 'scopes', 'dead_letters',
                'retention_state']
        ) AS name
        WHERE NOT (
            has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')
            AND has_table_privilege(name, 'UPDATE') AND has_table_privilege(name, 'DELETE')
        )
    ) AS closed
"""

_CONNECTIONS = """
SELECT current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int
    - (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')
"""

_DEAD_TRACES = """
SELECT pg_stat_get_live_tuples('traces'::regclass), pg_stat_get_dead_tuples('traces'::regclass)
"""

_MANY_DEAD_ROWS = 100_000


async def examine_server(connection: PlainConnection, pooled: int) -> list[Finding]:
    """All checks of the server and of our tables; changes nothing.

    pooled: how many connections the pools of a collector have.
    """
    return [
        await _version(connection),
        await _durability(connection),
        await _clock(connection),
        await _rights(connection),
        await _indexes(connection),
        *await _partitions(connection),
        await _room_for_connections(connection, pooled + _OWN_CONNECTIONS),
        await _dead_rows(connection),
    ]


async def _version(connection: PlainConnection) -> Finding:
    version = await connection.fetchval("SELECT current_setting('server_version')")
    number = await connection.fetchval("SELECT current_setting('server_version_num')::int")
    if number < OLDEST_VERSION * 10_000:
        return problem("version", f"PostgreSQL {version}", f"upgrade to {OLDEST_VERSION} or newer")
    return ok("version", f"PostgreSQL {version}; no extension is needed")


async def _durability(connection: PlainConnection) -> Finding:
    off = [
        name
        for name in ("fsync", "full_page_writes")
        if await connection.fetchval("SELECT current_setting($1)", name) != "on"
    ]
    if off:
        return problem(
            "durability",
            f"{' and '.join(off)} off: a crash loses or damages what was acknowledged",
            "set them to on in postgresql.conf and reload",
        )
    return ok("durability", "what is committed survives a crash")


async def _clock(connection: PlainConnection) -> Finding:
    before_ns = time.time_ns()
    server_ns = await connection.fetchval(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint"
    )
    after_ns = time.time_ns()
    ahead_s = (server_ns - (before_ns + after_ns) // 2) / NS_PER_S
    uncertain_s = (after_ns - before_ns) / 2 / NS_PER_S
    if abs(ahead_s) <= CLOCK_WARNING_S + uncertain_s:
        return ok("clock", f"the server's is {ahead_s:+.3f} s from this machine's")
    judge = problem if abs(ahead_s) > CLOCK_PROBLEM_S else warning
    return judge(
        "clock",
        f"the server's is {ahead_s:+.1f} s from this machine's",
        "synchronise both (NTP); retention and partitions follow the collector's",
    )


async def _rights(connection: PlainConnection) -> Finding:
    [row] = await connection.fetch(_RIGHTS)
    if row["closed"]:
        return problem(
            "permissions",
            f"the database user may not read and write {', '.join(row['closed'])}",
            "GRANT SELECT, INSERT, UPDATE, DELETE on them, or connect as their owner",
        )
    if not row["makes_temporary"]:
        return problem(
            "permissions",
            "the database user may not make temporary tables, through which all writes go",
            "GRANT TEMPORARY ON DATABASE to it",
        )
    if not (row["owns"] and row["creates"]):
        what = "create tables" if row["owns"] else "add and drop partitions of spans"
        return problem(
            "permissions",
            f"the database user may not {what}, so there are no new days and no retention",
            "connect as the owner of spans, or GRANT its role; GRANT CREATE ON SCHEMA",
        )
    return ok("permissions", "the database user may do all that is needed")


async def _indexes(connection: PlainConnection) -> Finding:
    rows = await connection.fetch(_INDEXES)
    there = {row["name"] for row in rows}
    invalid = sorted(row["name"] for row in rows if not row["indisvalid"])
    missing = sorted(expected_indexes("postgres").keys() - there)
    bare = [row["name"] for row in await connection.fetch(_BARE_PARTITIONS)]
    said = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("invalid", invalid),
            ("missing", missing),
            ("partitions without an index of spans", bare),
        )
        if names
    ]
    if said:
        return problem(
            "indexes",
            "; ".join(said),
            "REINDEX INDEX CONCURRENTLY an invalid one;"
            " create a missing one as the files in migrations/postgres do",
        )
    return ok("indexes", "all are there and valid")


async def _partitions(connection: PlainConnection) -> list[Finding]:
    partitions = await list_day_partitions(connection)
    days = {each.first_ns // NS_PER_DAY for each in partitions if each.first_ns is not None}
    today = time.time_ns() // NS_PER_DAY
    missing = [name for name, day in (("today", today), ("tomorrow", today + 1)) if day not in days]
    found = [ok("partitions", f"{len(days)} days, today and tomorrow among them")]
    if missing:
        found = [
            problem(
                "partitions",
                f"none for {' and '.join(missing)}: spans go to spans_default",
                "start a collector, or run `msgtrace-admin partitions --ahead 2`",
            )
        ]
    default = next((each for each in partitions if each.first_ns is None), None)
    if default is None:
        return [
            *found,
            problem(
                "default partition",
                "spans_default is gone: spans of clocks that are far off become dead letters",
                "CREATE TABLE spans_default PARTITION OF spans DEFAULT",
            ),
        ]
    return [*found, _default_partition(default.rows)]


def _default_partition(rows: int) -> Finding:
    if rows > DEFAULT_ROWS:
        return warning(
            "default partition",
            f"about {rows:,} spans with clocks more than {DAYS_BACK} days back or {DAYS_AHEAD}"
            " days ahead; each new day's partition is checked against them",
            "set the clocks of their senders, see `SELECT service_name, count(*) FROM"
            " spans_default GROUP BY 1`; retention deletes those of the past",
        )
    return ok("default partition", f"about {rows:,} spans")


async def _room_for_connections(connection: PlainConnection, needed: int) -> Finding:
    free = await connection.fetchval(_CONNECTIONS)
    if free < needed:
        return warning(
            "connections",
            f"{free} are free; a collector takes up to {needed}",
            "raise max_connections",
        )
    return ok("connections", f"{free} are free")


async def _dead_rows(connection: PlainConnection) -> Finding:
    [(live, dead)] = await connection.fetch(_DEAD_TRACES)
    if dead > max(live, _MANY_DEAD_ROWS):
        return warning(
            "dead rows",
            f"traces has {dead:,} dead rows beside {live:,}",
            "is autovacuum on, or held up by an old transaction? `msgtrace-admin vacuum`",
        )
    return ok("dead rows", f"traces has {dead:,} beside {live:,}")
