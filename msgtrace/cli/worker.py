"""One worker of a supervisor: `python -m msgtrace.cli.worker FILE_DESCRIPTOR`.

Path: workers.supervisor → [cli.worker] → cli.start, collector. What it is to serve it is told over
the socket; nothing of that, the database's password among it, stands on its command line.
"""

from __future__ import annotations

import socket
import sys

import click

from msgtrace.cli.group import EXIT_INTERRUPTED
from msgtrace.cli.serve import run_service
from msgtrace.cli.text import clean
from msgtrace.errors import MsgtraceError
from msgtrace.telemetry.logs import configure_logging
from msgtrace.workers.messages import Assignment, Channel


def main() -> None:
    """Serve until asked to stop. Exit codes as those of `msgtrace`."""
    end = socket.socket(fileno=int(sys.argv[1]))
    try:
        run_service(_serve(end))
    except MsgtraceError as error:
        raise SystemExit(_explain(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None


async def _serve(end: socket.socket) -> None:
    channel = await Channel.open(end)
    told = await channel.receive()
    if not isinstance(told, Assignment):  # the supervisor has ended
        return
    configure_logging(told.settings, worker=told.number)
    from msgtrace.workers.member import Member  # noqa: PLC0415 - after the log is configured

    member = Member(told.number, channel, is_first=told.is_first)
    if told.service == "start":
        from msgtrace.cli.start import run_all  # noqa: PLC0415 - loads every server

        await run_all(told.settings, member)
    else:
        from msgtrace.collector import run_collector  # noqa: PLC0415 - loads grpc and the drivers

        await run_collector(told.settings, member)


def _explain(error: MsgtraceError) -> int:
    click.ClickException(clean(str(error), max_chars=2_000)).show()
    return 1


if __name__ == "__main__":
    main()
