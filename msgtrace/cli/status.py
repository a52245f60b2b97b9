"""`msgtrace-admin status`: what the database is and how much it holds."""

from __future__ import annotations

import dataclasses

import click
import msgspec
from rich.text import Text

from msgtrace.cli.database import database_options, with_storage
from msgtrace.cli.options import SettingsSource
from msgtrace.cli.render import open_console, print_facts, print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean, counted, human_size, local_time
from msgtrace.model.maintenance import RetentionState
from msgtrace.storage.protocol import StorageStatus


@click.command()
@database_options
@json_option
def status(source: SettingsSource, as_json: bool) -> None:
    """Show what the database is, its schema, how much it holds and how much comes in.

    Changes nothing, and refuses a database whose migrations are pending. Counts of a large database
    are estimates.
    """
    found = with_storage(source, lambda storage: storage.get_status())
    if as_json:
        print_json(msgspec.json.encode(dataclasses.asdict(found)))
    else:
        print_facts(open_console(), _facts(found))


def _facts(found: StorageStatus) -> list[tuple[str, Text]]:
    about = "" if found.is_exact else "about "
    facts = [
        ("Backend", found.backend),
        ("Server", found.server_version),
        ("URL", found.url),
        ("Schema", f"version {found.schema_version} ({found.migrations[-1]})"),
        ("Size", human_size(found.database_bytes)),
        ("Traces", f"{about}{found.trace_count:,}"),
        ("Spans", f"{about}{found.span_count:,}"),
        ("Oldest", _moment(found.oldest_ns)),
        ("Newest", _moment(found.newest_ns)),
        ("Comes in", f"{found.spans_per_s:,.1f} spans/s, over the last minute"),
        ("Retention", _retention(found.retention)),
    ]
    if found.partitions:
        facts.insert(-1, ("Partitions", f"{found.partitions:,}"))
    return [(name, Text(clean(value))) for name, value in facts]


def _moment(time_ns: int | None) -> str:
    return "none" if time_ns is None else local_time(time_ns)


def _retention(state: RetentionState) -> str:
    if not state.succeeded_at_ns:
        return "has never run"
    return (
        f"last ran {local_time(state.succeeded_at_ns)};"
        f" in all {counted(state.purged_spans, 'span')} of"
        f" {counted(state.purged_traces, 'trace')} deleted,"
        f" before {local_time(state.purged_before_ns)}"
    )
