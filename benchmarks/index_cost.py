"""What does each index cost ingest?

    python -m benchmarks.index_cost [--spans 200000] [--rounds 3]

Writes the same realistic batches (`benchmarks.query_data`) through the project's writer into fresh
PostgreSQL databases: one with the whole schema, one each without one of its indexes, one without
the triggers. In CPU time of the database a span, because that holds still on a busy machine; the
least of the rounds, because neighbours only ever add to it. Each round begins with another variant.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Sequence

import asyncpg

from benchmarks.databases import new_database
from benchmarks.processes import cpu_s, postgres_processes
from benchmarks.query_data import TraceMaker
from msgtrace.model.batch import SpanBatch
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.postgres_server import postgres_server

VARIANTS = {
    "the whole schema": "SELECT 1",
    "and an index on services": "CREATE INDEX ON spans (tenant_id, service_name, start_time_ns)",
    "without traces_newest": "DROP INDEX traces_newest",
    "without traces_with_errors": "DROP INDEX traces_with_errors",
    "without traces_by_session": "DROP INDEX traces_by_session",
    "without traces_by_user": "DROP INDEX traces_by_user",
    "without traces_by_label": "DROP INDEX traces_by_label",
    "without traces_without_terms": "DROP INDEX traces_without_terms",
    "without the filters' triggers": (
        "DROP TRIGGER traces_inserted ON traces; DROP TRIGGER traces_updated ON traces"
    ),
    "and an index on duration": "CREATE INDEX ON traces (tenant_id, duration_ns)",
}


def main() -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    batches = list(TraceMaker(1, options.spans).batches())
    spans = sum(len(batch.spans) for batch in batches)
    cpu_us: dict[str, list[float]] = defaultdict(list)
    with postgres_server() as admin_url:
        for number in range(options.rounds):
            variants = list(VARIANTS.items())
            turn = number * len(variants) // options.rounds
            for place, (name, change) in enumerate(variants[turn:] + variants[:turn]):
                url = new_database(admin_url, f"cost_{number}_{place}")
                cpu_us[name].append(asyncio.run(_measure(url, change, batches)) / spans * 1e6)
    whole = min(cpu_us["the whole schema"])
    print(f"{'database CPU µs a span':<32} {'least':>8} {'difference':>11}")
    for name in VARIANTS:
        least = min(cpu_us[name])
        print(f"{name:<32} {least:>8.2f} {(least - whole) / whole:>+11.1%}")


async def _measure(url: str, change: str, batches: Sequence[SpanBatch]) -> float:
    """CPU seconds of the database for all batches."""
    connection = await asyncpg.connect(url)
    await connection.execute(change)
    await connection.close()
    server = postgres_processes(url)[0]
    async with open_storage(Settings(database_url=url)) as storage:
        await storage.write_spans(batches[:1])  # makes partitions and warms caches
        before_s = cpu_s(server)
        for batch in batches[1:]:
            await storage.write_spans([batch])
        return cpu_s(server) - before_s


if __name__ == "__main__":
    main()
