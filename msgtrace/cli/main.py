"""`msgtrace`: the commands of one installation, from starting it to clearing it.

Reading commands must start fast: nothing that this module imports may import grpc, starlette,
uvicorn or a database driver. Commands that need them import them when they run.
"""

from __future__ import annotations

import click

from msgtrace.cli.clear import clear
from msgtrace.cli.explain import settings
from msgtrace.cli.export_traces import export_traces
from msgtrace.cli.group import CONTEXT_SETTINGS, CommandGroup, version_option
from msgtrace.cli.import_traces import import_traces
from msgtrace.cli.read import list_traces, show, stats
from msgtrace.cli.ready import ready
from msgtrace.cli.serve import collector, query, start
from msgtrace.cli.sessions import sessions
from msgtrace.cli.tail import tail


@click.group("msgtrace", cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@version_option
def main() -> None:
    """Store OpenTelemetry traces and read them back.

    `msgtrace start` runs everything; point any OTLP exporter at port 4317 (gRPC) or 4318 (HTTP).
    """


for _command in (
    start,
    collector,
    query,
    list_traces,
    show,
    tail,
    sessions,
    stats,
    export_traces,
    import_traces,
    clear,
    settings,
    ready,
):
    main.add_command(_command)
