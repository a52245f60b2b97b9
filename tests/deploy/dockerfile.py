"""Read the repository's Dockerfile: stages, their instructions, and what the image is run with.

Knows the instructions that the Dockerfile uses, and refuses any other.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What the base image sets PATH to."""

_KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK"} | {
    "LABEL",
    "RUN",
    "USER",
    "WORKDIR",
}
_FLAG = re.compile(r"--([\w-]+)=(\S+)\s+")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, its flags, and the rest as it is written."""

    name: str
    flags: dict[str, str]
    rest: str

    def words(self) -> list[str]:
        """The rest as a list: the JSON form, or split at spaces."""
        if self.rest.startswith("["):
            return [str(word) for word in json.loads(self.rest)]
        return shlex.split(self.rest)


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What ENV sets, with PATH filled in."""
        found = {"PATH": BASE_PATH}
        for each in self._all("ENV"):
            for word in each.words():
                name, _, value = word.partition("=")
                found[name] = value.replace("$PATH", found["PATH"])
        return found

    def words_of(self, name: str) -> list[str]:
        """The words of the last instruction of this name; empty if there is none."""
        found = self._all(name)
        return found[-1].words() if found else []

    def health_check(self) -> list[str]:
        """The command of HEALTHCHECK."""
        rest = self._all("HEALTHCHECK")[-1].rest.removeprefix("CMD").strip()
        return Instruction("CMD", {}, rest).words()

    def _all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]


def read_stages(path: Path = ROOT / "Dockerfile") -> list[Stage]:
    """The stages in order; the last one is the image. Raises ValueError for what is not known."""
    stages: list[Stage] = []
    for line in _logical_lines(path.read_text()):
        instruction = _parse(line)
        if instruction.name == "FROM":
            base, *alias = re.split(r"\s+AS\s+", instruction.rest)
            stages.append(Stage(base, alias[0] if alias else ""))
        elif stages:
            stages[-1].instructions.append(instruction)
    return stages


def context_patterns() -> list[str]:
    """What .dockerignore lets into the build: it leaves out everything else."""
    lines = _ignore_lines()
    if lines[0] != "*":
        raise ValueError(".dockerignore must begin with *")
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def left_out_names() -> list[str]:
    """Names of files and folders that .dockerignore leaves out wherever they are."""
    return [line.removeprefix("**/") for line in _ignore_lines() if line.startswith("**/")]


def _ignore_lines() -> list[str]:
    return (ROOT / ".dockerignore").read_text().split()


def _logical_lines(text: str) -> list[str]:
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in kept.replace("\\\n", " ").splitlines() if line.strip()]


def _parse(line: str) -> Instruction:
    name, _, rest = line.partition(" ")
    if name not in _KNOWN:
        raise ValueError(f"{name} is not known here")
    rest, flags = rest.strip(), {}
    while match := _FLAG.match(rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name, flags, rest)
