"""Fuzz every target for as long as asked: python -m tests.fuzz.long --seconds 600.

Prints each fault once with the bytes that make it, and the slowest input of each target. Ends with
1 if there was a fault, or an input that took too long.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS, Target

SLOW_S = 2.0
"""An input of at most a mebibyte may take so long."""

MAX_CORPUS = 400

KEPT_SHARE = 0.02
"""Inputs that join the corpus, so that damage adds up."""


@dataclass
class Run:
    """What came of one target."""

    target: Target
    corpus: list[bytes]
    inputs: int = 0
    slowest_s: float = 0.0
    slowest: bytes = b""
    faults: dict[str, bytes] = field(default_factory=dict)

    def step(self, chance: random.Random) -> None:
        """One input."""
        body = mutate(chance, chance.choice(self.corpus), self.corpus)
        started = time.perf_counter()
        try:
            self.target.try_out(body)
        except Exception:  # noqa: BLE001 - every one of them is a fault
            where = traceback.format_exc().strip()
            self.faults.setdefault("\n".join(where.splitlines()[-3:]), body)
        took_s = time.perf_counter() - started
        self.inputs += 1
        if took_s > self.slowest_s:
            self.slowest_s, self.slowest = took_s, body
        if chance.random() < KEPT_SHARE and len(body) < 100_000:
            self._keep(chance, body)

    def _keep(self, chance: random.Random, body: bytes) -> None:
        if len(self.corpus) < MAX_CORPUS:
            self.corpus.append(body)
        else:
            self.corpus[chance.randrange(len(self.target.corpus), MAX_CORPUS)] = body


def fuzz(seconds: float, seed: int, names: Sequence[str]) -> list[Run]:
    """Give every target its share of the time."""
    runs = []
    for name in names:
        chance = random.Random(f"{seed} {name}")
        run = Run(TARGETS[name], list(TARGETS[name].corpus))
        until = time.monotonic() + seconds / len(names)
        while time.monotonic() < until:
            run.step(chance)
        say(
            f"{name}: {run.inputs} inputs, {len(run.faults)} faults,"
            f" slowest {run.slowest_s * 1000:.1f} ms for {len(run.slowest)} bytes"
        )
        for where, body in run.faults.items():
            say(f"  {where}\n  {body[:2000]!r}")
        runs.append(run)
    return runs


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", choices=TARGETS, action="append")
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}")
    runs = fuzz(arguments.seconds, arguments.seed, arguments.only or list(TARGETS))
    return int(any(run.faults or run.slowest_s > SLOW_S for run in runs))


if __name__ == "__main__":
    sys.exit(main())
