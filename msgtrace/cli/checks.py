"""What the doctor looks at: settings, the database, its content, the spill, dead letters.

Path: cli.doctor → [cli.checks] → storage, settings. Checks of the database itself are its
backend's (`Maintenance.examine`). Each finding says what to do; no check changes anything.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from msgtrace.cli.spill import spill_rows
from msgtrace.cli.text import counted, human_duration, human_size, local_time
from msgtrace.errors import MsgtraceError
from msgtrace.maintenance.retention import RetentionPolicy
from msgtrace.model.maintenance import Finding, ok, problem, warning
from msgtrace.model.units import NS_PER_S
from msgtrace.settings.sources import unknown_variables
from msgtrace.settings.table import NO_SPILL, Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage

LATE_RUNS = 10
"""Intervals without a success of retention from which on it is a problem."""

LEAST_LATE_S = 3_600.0

AHEAD_S = 3_600
"""How far a sender's clock may be ahead before it is worth a word."""

SHOWN_TRACES = 3


async def examine(settings: Settings, sampled_traces: int) -> AsyncGenerator[Finding, None]:
    """All findings, the first causes first; without a database there are fewer."""
    yield _variables()
    for finding in _spill(settings):
        yield finding
    try:
        async with open_storage(dataclasses.replace(settings, auto_migrate=False)) as storage:
            async for finding in _examine_storage(storage, settings, sampled_traces):
                yield finding
    except MsgtraceError as error:
        yield problem(
            "database",
            str(error),
            "mend what the sentence says; `msgtrace settings` shows where each setting comes from",
        )


async def _examine_storage(
    storage: Storage, settings: Settings, sampled_traces: int
) -> AsyncGenerator[Finding, None]:
    for finding in await storage.maintenance.examine():
        yield finding
    status = await storage.get_status()
    yield ok("schema", f"version {status.schema_version}, nothing pending")
    yield await _retention(storage, settings)
    yield await _drift(storage, sampled_traces)
    yield _sender_clocks(status.newest_ns)
    yield await _dead_letters(storage, settings)


def _variables() -> Finding:
    strangers = unknown_variables()
    if strangers:
        shown = ", ".join(
            f"{name} (did you mean {likely}?)" if likely else name
            for name, likely in strangers.items()
        )
        return warning("settings", f"nothing reads {shown}", "correct or remove them")
    return ok("settings", "all can be used, and every MSGTRACE_* variable is read")


def _spill(settings: Settings) -> list[Finding]:
    if settings.spill_dir == NO_SPILL or settings.database_url.startswith("sqlite"):
        return []
    try:
        rows = spill_rows(settings)
        folder = _existing(Path(settings.spill_dir).expanduser())
        free = shutil.disk_usage(folder).free
    except (OSError, MsgtraceError) as error:
        return [problem("spill", f"cannot be read: {error}", "see MSGTRACE_SPILL_DIR")]
    left = [row for row in rows if row.requests and not row.is_in_use]
    aside = sum(row.set_aside for row in rows)
    found = []
    if left:
        found.append(
            warning(
                "spill",
                f"{counted(sum(row.requests for row in left), 'request')} of ended collectors"
                " wait on disk and are in no query",
                "`msgtrace-admin spill drain`; `msgtrace-admin spill list` shows the files",
            )
        )
    if aside:
        found.append(
            warning(
                "spill",
                f"{counted(aside, 'request')} can never be stored",
                "`msgtrace-admin spill export FOLDER` writes them to files",
            )
        )
    if free < settings.max_spill_bytes:
        found.append(
            warning(
                "spill",
                f"{human_size(free)} are free for up to {human_size(settings.max_spill_bytes)}",
                "make room, or set MSGTRACE_MAX_SPILL_BYTES to what there is",
            )
        )
    waiting = sum(row.requests for row in rows)
    return found or [ok("spill", f"{counted(waiting, 'request')} waiting, with room for more")]


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


async def _retention(storage: Storage, settings: Settings) -> Finding:
    policy = RetentionPolicy.of(settings)
    state = await storage.maintenance.get_retention_state()
    if not policy.is_on:
        return ok("retention", "is off: nothing is ever deleted by itself")
    late_s = max(LATE_RUNS * settings.retention_interval_s, LEAST_LATE_S)
    age_ns = time.time_ns() - state.succeeded_at_ns
    if age_ns > late_s * NS_PER_S:
        return problem(
            "retention",
            f"no success since {local_time(state.succeeded_at_ns)}"
            if state.succeeded_at_ns
            else "has never succeeded",
            "is a collector running with these settings? its log says maintenance_failed or"
            " partition_busy and why",
        )
    if policy.max_bytes:
        verdict = await storage.maintenance.judge_size(policy.max_bytes, time.time_ns())
        if verdict.used_bytes > policy.max_bytes and verdict.edge_ns is None:
            return warning(
                "retention",
                f"{human_size(verdict.used_bytes)} are used of {human_size(policy.max_bytes)}, and"
                " only today's spans are left",
                "raise MSGTRACE_MAX_DATABASE_BYTES, or send less",
            )
    return ok("retention", f"last succeeded {human_duration(age_ns)} ago")


async def _drift(storage: Storage, sampled_traces: int) -> Finding:
    looked_at, drifted = await storage.maintenance.sample_drift(sampled_traces)
    if drifted:
        shown = ", ".join(trace_id.hex() for trace_id in drifted[:SHOWN_TRACES])
        return problem(
            "summaries",
            f"{len(drifted):,} of {looked_at:,} sampled are not what their spans say: {shown}",
            "`msgtrace-admin rebuild-summaries`",
        )
    return ok("summaries", f"{looked_at:,} sampled are what their spans say")


def _sender_clocks(newest_ns: int | None) -> Finding:
    ahead_ns = (newest_ns or 0) - time.time_ns()
    if ahead_ns > AHEAD_S * NS_PER_S:
        return warning(
            "sender clocks",
            f"the newest trace starts {human_duration(ahead_ns)} from now",
            "set the clock of its sender: `msgtrace list` shows it first; what lies ahead is not"
            " deleted before its time has come",
        )
    return ok("sender clocks", "no trace lies ahead of this machine's clock")


async def _dead_letters(storage: Storage, settings: Settings) -> Finding:
    totals = await storage.dead_letters.sum()
    if not totals.letter_count:
        return ok("dead letters", "none")
    share = totals.kept_bytes / max(settings.max_dead_letter_bytes, 1)
    return warning(
        "dead letters",
        f"{counted(totals.letter_count, 'request')} with spans that the database refused,"
        f" {human_size(totals.kept_bytes)}, {share:.0%} of the limit",
        "`msgtrace-admin dead-letters list` shows why; `replay` stores them once that is mended",
    )
