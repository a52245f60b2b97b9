"""`msgtrace import`: files of OTLP requests, sent to a collector.

Path: file → cli.otlp_files → [cli.import_traces] → cli.otlp_endpoint → collector. A request counts
as imported when the collector has acknowledged it, which msgtrace does once its spans are stored.
A bad request is told of and left out. To send one again changes nothing, so an import may always be
begun anew; `--resume` only saves the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click
import msgspec
import platformdirs

from msgtrace.cli.client import local_host
from msgtrace.cli.options import config_option
from msgtrace.cli.otlp_endpoint import Answer, OtlpEndpoint
from msgtrace.cli.otlp_files import STDIO, Record, read_records
from msgtrace.cli.render import print_json
from msgtrace.cli.service_options import cert_option, json_option, read_url, timeout_option
from msgtrace.cli.state_files import read_state, write_state
from msgtrace.cli.text import clean, counted
from msgtrace.model.units import MIB
from msgtrace.settings.sources import read_settings
from msgtrace.settings.table import Settings

SEND_TIMEOUT_S = 60.0

AT_ONCE = 4
"""Requests under way: a collector commits those together that come together."""

MAX_WAITING_BYTES = 32 * MIB
"""Request bytes that are read ahead; a larger request goes alone."""

MAX_SHOWN = 20
"""Bad requests that are told of one by one."""

STATE_INTERVAL_S = 1.0


class ImportState(msgspec.Struct, kw_only=True):
    """How far a file was imported: so many of its first records were answered."""

    file: str
    file_bytes: int
    modified_ns: int
    endpoint: str
    records: int = 0


@dataclass(slots=True)
class Tally:
    """What became of the records of all files. problems: one line each, the first MAX_SHOWN."""

    imported: int = 0
    bad: int = 0
    rejected_spans: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, record: Record, answer: Answer) -> None:
        """Count one record, and tell of it if something is wrong with it."""
        self.imported += answer.is_accepted
        self.bad += not answer.is_accepted
        self.rejected_spans += answer.rejected_spans
        if answer.problem:
            lost = (
                counted(answer.rejected_spans, "span") + " left out: "
                if answer.rejected_spans
                else ""
            )
            line = clean(f"{name}, {record.place}: {lost}{answer.problem}", max_chars=1_000)
            if len(self.problems) < MAX_SHOWN:
                click.echo(line, err=True)
                self.problems.append(line)


@click.command("import")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--endpoint",
    metavar="URL",
    callback=read_url,
    help="Address of the collector's OTLP/HTTP port; by default that of the settings.",
)
@click.option("--resume", is_flag=True, help="Go on with an import that was interrupted.")
@cert_option
@timeout_option(SEND_TIMEOUT_S, "How long to try to deliver one request.")
@json_option
@config_option
@click.pass_context
def import_traces(
    ctx: click.Context,
    files: Sequence[Path],
    endpoint: str | None,
    resume: bool,
    client_cert: Path | None,
    timeout: float,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Send the OTLP requests in FILEs to a collector; - is standard input.

    Takes what `msgtrace export` and OpenTelemetry's file exporters write: OTLP/JSON, a request a
    line, or protobuf requests each behind its length; also with gzip or zstd, and files of one
    request. Spans that are stored already stay as they are. Bad requests are listed and make the
    exit code 1; all others are imported.
    """
    url = endpoint or _own_endpoint(read_settings(config_file=config_file))
    target = OtlpEndpoint(url, timeout, client_cert)
    tally = Tally()
    for file in files:
        _import_file(file, target, tally, resume=resume)
    for file in files:
        _state_path(file, url).unlink(missing_ok=True)
    _report(tally, len(files), as_json)
    ctx.exit(1 if tally.bad or tally.rejected_spans else 0)


def _own_endpoint(settings: Settings) -> str:
    host = local_host(settings)
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.http_port}"


def _import_file(path: Path, endpoint: OtlpEndpoint, tally: Tally, *, resume: bool) -> None:
    name = "standard input" if path == STDIO else str(path)
    with _opened(path, name) as (file, state, advance):
        state.endpoint = endpoint.url
        done = _answered_before(path, state) if resume else 0
        sender = _Sender(endpoint, path, state)
        try:
            for record, answer in sender.send_all(_unanswered(read_records(file), done)):
                tally.add(name, record, answer)
                advance()
        except OSError as error:
            raise click.ClickException(f"cannot read {clean(name)}: {error.strerror}") from error
        except BaseException:
            if state.records and path != STDIO:
                click.echo(
                    f"Imported {counted(state.records, 'record')} of {clean(name)};"
                    " the same command with --resume goes on there.",
                    err=True,
                )
            raise
        finally:
            sender.keep_state()


class _Sender:
    """Sends records, several at once, and notes up to where all have their answers."""

    def __init__(self, endpoint: OtlpEndpoint, path: Path, state: ImportState) -> None:
        self._endpoint = endpoint
        self._path = path
        self._state = state
        self._kept_at_s = time.monotonic()

    def send_all(self, records: Iterator[Record]) -> Iterator[tuple[Record, Answer]]:
        """Each record with its answer, in order. Raises EndpointError."""
        waiting: deque[tuple[Record, Future[Answer]]] = deque()
        with ThreadPoolExecutor(AT_ONCE, "msgtrace-import") as pool:
            try:
                for record in records:
                    while waiting and not _has_room(waiting, record):
                        yield self._answered(*waiting.popleft())
                    waiting.append((record, pool.submit(self._send, record)))
                while waiting:
                    yield self._answered(*waiting.popleft())
            except BaseException:
                self._endpoint.is_given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def keep_state(self) -> None:
        """Write down how far it is."""
        if self._path != STDIO:
            self._kept_at_s = time.monotonic()
            write_state(_state_path(self._path, self._endpoint.url), self._state)

    def _send(self, record: Record) -> Answer:
        return Answer(False, record.problem) if record.problem else self._endpoint.send(record)

    def _answered(self, record: Record, answer: Future[Answer]) -> tuple[Record, Answer]:
        result = answer.result()
        self._state.records = record.number
        if time.monotonic() - self._kept_at_s > STATE_INTERVAL_S:
            self.keep_state()
        return record, result


def _has_room(waiting: Sequence[tuple[Record, Future[Answer]]], record: Record) -> bool:
    held_bytes = sum(len(each.body) for each, _ in waiting) + len(record.body)
    return len(waiting) < 2 * AT_ONCE and held_bytes <= MAX_WAITING_BYTES


def _unanswered(records: Iterator[Record], done: int) -> Iterator[Record]:
    return (record for record in records if record.number > done)


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[IO[bytes], ImportState, Callable[[], None]]]:
    """The file, a state for it, and what moves the bar to where the file has been read."""
    if path == STDIO:
        yield (
            sys.stdin.buffer,
            ImportState(file=name, file_bytes=0, modified_ns=0, endpoint=""),
            lambda: None,
        )
        return
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        state = ImportState(
            file=str(path.resolve()),
            file_bytes=found.st_size,
            modified_ns=found.st_mtime_ns,
            endpoint="",
        )
        label = f"Importing {clean(path.name)}"
        with click.progressbar(length=found.st_size, label=label, file=sys.stderr) as bar:
            yield file, state, lambda: bar.update(file.tell() - bar.pos)


def _answered_before(path: Path, state: ImportState) -> int:
    """How many records of this very file this collector has answered already."""
    before = None if path == STDIO else read_state(_state_path(path, state.endpoint), ImportState)
    if before is None:
        return 0
    is_same = msgspec.structs.replace(before, records=0) == state
    state.records = before.records if is_same else 0
    return state.records


def _state_path(path: Path, endpoint: str) -> Path:
    known_by = hashlib.sha256(f"{path.resolve()}\n{endpoint}".encode()).hexdigest()[:16]
    folder = platformdirs.user_data_path("msgtrace") / "imports"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{known_by}.json"


def _report(tally: Tally, file_count: int, as_json: bool) -> None:
    if as_json:
        print_json(
            msgspec.json.encode(
                {
                    "files": file_count,
                    "imported_requests": tally.imported,
                    "bad_requests": tally.bad,
                    "rejected_spans": tally.rejected_spans,
                    "problems": tally.problems,
                }
            )
        )
        return
    click.echo(f"Imported {counted(tally.imported, 'request')}.")
    if tally.bad or tally.rejected_spans:
        click.echo(
            f"Left out {counted(tally.bad, 'bad request')}"
            f" and {counted(tally.rejected_spans, 'rejected span')}.",
            err=True,
        )
