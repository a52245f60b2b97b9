"""`msgtrace export`: matching traces into a file of OTLP requests.

Path: cli.client → [cli.export_traces] → file. It asks for some traces at a time, and keeps what it
has of a page only when the page is whole and on disk, so that it can always go on where it stopped:
newest first, neither a gap nor a trace twice. The file has its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import click
import msgspec

from msgtrace.cli.client import READ_TIMEOUT_S, QueryService, QueryServiceAway
from msgtrace.cli.filters import Parameters, filter_options
from msgtrace.cli.otlp_files import (
    ENCODINGS,
    STDIO,
    FileForm,
    UnknownForm,
    form_of,
    open_compressor,
)
from msgtrace.cli.render import print_json
from msgtrace.cli.replies import TraceStats
from msgtrace.cli.service_options import service_options
from msgtrace.cli.state_files import read_state, write_state
from msgtrace.cli.text import clean, counted, human_size
from msgtrace.model.search import MAX_LIMIT

FIRST_PAGE_TRACES = 50
PAGE_SPANS = 20_000
"""What a page aims at: so much is fetched again after an interruption."""

RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""How long it waits for a service that is away before it asks again; after the last it gives up."""


class ExportState(msgspec.Struct, kw_only=True):
    """What is in the unfinished file. cursor: where it goes on. bytes: what of the file is good.

    is_complete: nothing is left to fetch, the file only lacks its name.
    """

    filters: list[tuple[str, str]]
    encoding: str
    cursor: str | None = None
    is_complete: bool = False
    bytes: int = 0
    traces: int = 0
    spans: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    """The file that is made, and what stands for it meanwhile."""

    path: Path

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def state(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part.json")


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@filter_options
@click.option(
    "--format",
    "encoding",
    type=click.Choice(ENCODINGS),
    help="By default what the name says: .jsonl or .binpb.",
)
@click.option("--resume", is_flag=True, help="Go on with an export that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever there is of that name.")
@service_options(timeout_s=READ_TIMEOUT_S)
def export_traces(
    service: QueryService,
    as_json: bool,
    file: Path,
    filters: Parameters,
    encoding: str | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Write traces to FILE as OTLP, all or those that match the filters; - is standard output.

    Takes the filters of `msgtrace list`. The name says the form: .jsonl for OTLP/JSON, a request a
    line; .binpb for protobuf, each request behind its length; with .gz or .zst compressed. These
    are the files of OpenTelemetry's file exporters, and `msgtrace import` reads them.
    Traces that come while it runs are not in it.
    """
    try:
        form = form_of(file, encoding)
    except UnknownForm as error:
        raise click.UsageError(f"{error}, or give --format.") from error
    if file == STDIO:
        _write_out(service, filters, form)
        return
    target = _Target(file)
    state = _begin(target, filters, form, resume=resume, overwrite=overwrite)
    with _hinting(target):
        _export(service, state, target, form)
    _finish(target, state, as_json)


def _begin(
    target: _Target,
    filters: Parameters,
    form: FileForm,
    *,
    resume: bool,
    overwrite: bool,
) -> ExportState:
    """The state to begin with. Refuses to mix two exports, and to write over a file."""
    state = read_state(target.state, ExportState)
    if resume:
        return _resumed(target, state, filters, form)
    if not overwrite:
        for path, cure in ((target.path, ""), (target.part, "--resume goes on with it, ")):
            if path.exists():
                raise click.ClickException(
                    f"{clean(str(path))} exists: {cure}--overwrite begins anew"
                )
    target.state.unlink(missing_ok=True)
    return ExportState(filters=filters, encoding=form.encoding)


def _resumed(
    target: _Target,
    state: ExportState | None,
    filters: Parameters,
    form: FileForm,
) -> ExportState:
    if state is None or not target.part.exists():
        raise click.ClickException(
            f"there is no interrupted export of {clean(str(target.path))}; leave --resume out"
        )
    if target.part.stat().st_size < state.bytes:
        raise click.ClickException(
            f"{clean(str(target.part))} is shorter than it was; begin anew with --overwrite"
        )
    if filters and filters != state.filters:
        raise click.UsageError("--resume goes on with the filters of before; give none.")
    if form.encoding != state.encoding:
        raise click.UsageError(
            f"the interrupted export is in {state.encoding}: give that --format."
        )
    return state


def _export(service: QueryService, state: ExportState, target: _Target, form: FileForm) -> None:
    """Fetch page by page until there is none left."""
    flags = os.O_RDWR | os.O_CREAT
    with (
        open(os.open(target.part, flags, 0o600), "r+b") as file,
        _progress(service, state) as advance,
    ):
        page_traces = FIRST_PAGE_TRACES
        while not state.is_complete:
            fetch = partial(_fetch, service, state, page_traces, file, form)
            page = _with_patience(fetch)
            state.cursor = page.next_cursor
            state.is_complete = page.next_cursor is None
            state.traces += page.traces
            state.spans += page.spans
            state.bytes = _sync(file)
            write_state(target.state, state)
            advance(page.spans)
            page_traces = _fitting(page)


class _Page(msgspec.Struct, frozen=True):
    """What a page held, as the service says."""

    next_cursor: str | None
    traces: int
    spans: int


def _fetch(
    service: QueryService,
    state: ExportState,
    page_traces: int,
    file: IO[bytes],
    form: FileForm,
) -> _Page:
    """Write one page behind what is good of the file."""
    file.seek(state.bytes)
    file.truncate()
    with service.stream(
        "/api/v1/traces/export", _parameters(state, form, limit=page_traces)
    ) as reply:
        member = open_compressor(form.compression)
        for chunk in reply.chunks:
            file.write(member.compress(chunk))
        file.write(member.flush())
        headers = reply.headers
    return _Page(
        headers.get("Msgtrace-Next-Cursor"),
        int(headers.get("Msgtrace-Trace-Count", 0)),
        int(headers.get("Msgtrace-Span-Count", 0)),
    )


def _parameters(state: ExportState, form: FileForm, *, limit: int | None) -> Parameters:
    parameters = [*state.filters, ("format", form.encoding)]
    if limit is not None:
        parameters.append(("limit", str(limit)))
    if state.cursor is not None:
        parameters.append(("cursor", state.cursor))
    return parameters


def _sync(file: IO[bytes]) -> int:
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _fitting(page: _Page) -> int:
    """How many traces have about PAGE_SPANS spans."""
    per_trace = page.spans / page.traces if page.traces else 1.0
    return max(1, min(MAX_LIMIT, round(PAGE_SPANS / max(per_trace, 1.0))))


def _with_patience(fetch: Callable[[], _Page]) -> _Page:
    for delay_s in RETRY_DELAYS_S:
        try:
            return fetch()
        except QueryServiceAway:
            time.sleep(delay_s)
    return fetch()


@contextlib.contextmanager
def _progress(service: QueryService, state: ExportState) -> Iterator[Callable[[int], None]]:
    """A bar over the spans; without a total it would say nothing, and there is none."""
    sums = service.decode(service.get("/api/v1/stats", state.filters), TraceStats)
    total_spans = max(sums.total_spans, state.spans)
    with click.progressbar(length=total_spans, label="Exporting", file=sys.stderr) as bar:
        bar.update(state.spans)
        yield bar.update


@contextlib.contextmanager
def _hinting(target: _Target) -> Iterator[None]:
    """Say how to go on when it ends early."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(
            f"cannot write {clean(str(target.part))}: {error.strerror}"
        ) from error
    except BaseException:
        if target.state.exists():
            name = clean(shlex.quote(str(target.path)), max_chars=8_000)
            click.echo(f"`msgtrace export {name} --resume` goes on where this stopped.", err=True)
        raise


def _finish(target: _Target, state: ExportState, as_json: bool) -> None:
    target.part.replace(target.path)
    target.state.unlink(missing_ok=True)
    if as_json:
        sums = {"traces": state.traces, "spans": state.spans, "bytes": state.bytes}
        print_json(msgspec.json.encode({"file": str(target.path), **sums}))
        return
    click.echo(
        f"Wrote {counted(state.spans, 'span')} of {counted(state.traces, 'trace')}"
        f" to {clean(str(target.path))}, {human_size(state.bytes)}."
    )


def _write_out(service: QueryService, filters: Parameters, form: FileForm) -> None:
    """All in one reply; what breaks off there cannot be gone on with."""
    state = ExportState(filters=filters, encoding=form.encoding)
    output = sys.stdout.buffer
    with service.stream("/api/v1/traces/export", _parameters(state, form, limit=None)) as reply:
        for chunk in reply.chunks:
            output.write(chunk)
    output.flush()
