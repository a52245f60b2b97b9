"""Fuzz one target guided by coverage, with atheris: python -m tests.fuzz.guided TARGET [options].

Options are libFuzzer's, -max_total_time=600 for example. Needs `pip install atheris`, which is no
part of the test extra: it has wheels for some interpreters only.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["msgtrace"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until libFuzzer ends; a fault ends it with the bytes that make it."""
    name, *options = sys.argv[1:] or [""]
    if name not in TARGETS:
        raise SystemExit(f"name one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, body in enumerate(target.corpus):
            (Path(corpus) / str(number)).write_bytes(body)

        def mutate(body: bytes, max_bytes: int, seed: int) -> bytes:
            return target.mutate(random.Random(seed), body, target.corpus)[:max_bytes]

        atheris.Setup([sys.argv[0], corpus, *options], target.try_out, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
