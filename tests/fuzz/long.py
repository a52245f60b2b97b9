"""Fuzz every target for as long as asked: python -m tests.fuzz.long --minutes 10 --seed 1.

Prints how many inputs were taken and refused, the slowest one, and each fault once with a small
input that makes it. Ends with 1 if there was a fault, an input that took too long, or one that
ended the process that tried it.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fuzz.exports import made_requests
from tests.fuzz.targets import HAS_NATIVE, TARGETS, Target
from tests.fuzz.watched import Report, run_watched

MAX_SHOWN_BYTES = 4_000

MADE_REQUESTS = 200
"""That Hypothesis makes, to begin from beside the known ones."""


def fuzz(
    seconds: float,
    seed: int,
    names: Sequence[str],
    made: Sequence[ExportTraceServiceRequest] = (),
) -> bool:
    """Give every target its share of the time; whether nothing was at fault."""
    reports = []
    for name in names:
        target = _beginning_also_from(made, TARGETS[name])
        report = run_watched(target, seconds=seconds / len(names), seed=f"{seed} {name}")
        reports.append(report)
        say(f"{name}: {summary(report)}")
        for fault, body in report.faults.items():
            say(f"  {fault}\n  {body[:MAX_SHOWN_BYTES]!r}")
    inputs, cpu_s = sum(each.inputs for each in reports), sum(each.cpu_s for each in reports)
    faults = sum(len(each.faults) for each in reports)
    say(f"all: {inputs} inputs in {cpu_s:.0f} s of CPU, {faults} faults")
    return faults == 0


def _beginning_also_from(made: Sequence[ExportTraceServiceRequest], target: Target) -> Target:
    if target.encode is None:
        return target
    return replace(target, corpus=[*target.corpus, *map(target.encode, made)])


def summary(report: Report) -> str:
    """One line."""
    shares = ", ".join(
        f"{count / report.inputs:.1%} {outcome}" for outcome, count in report.outcomes.most_common()
    )
    return (
        f"{report.inputs} inputs, {report.inputs / max(report.cpu_s, 0.001):.0f} a CPU second"
        f" ({shares}), {len(report.faults)} faults, slowest {report.slowest_s * 1000:.0f} ms"
        f" for {len(report.slowest)} bytes, {report.growth_bytes / 2**20:.0f} MiB more memory"
    )


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0)
    length.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", choices=TARGETS, action="append", help="may be given repeatedly")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60 if arguments.seconds is None else arguments.seconds
    say(f"seed {arguments.seed}")
    if not HAS_NATIVE:
        say("msgtrace-native is not installed: what both decoders make is not compared")
    made = made_requests(MADE_REQUESTS, arguments.seed)
    return int(not fuzz(seconds, arguments.seed, arguments.only or list(TARGETS), made))


if __name__ == "__main__":
    sys.exit(main())
