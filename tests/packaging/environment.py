"""A throwaway virtual environment, and the question whether a distribution in it is whole."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOREIGN = ("PYTHON", "VIRTUAL_ENV", "MSGTRACE_", "OTEL_", "COVERAGE", "MYPY")
"""Beginnings of the variables by which the running environment could leak in."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment in `folder`; its programs run in `folder`, far from the repository."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Environment:
        """A new one of the running Python version, with pip and nothing else."""
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        return cls(folder)

    @classmethod
    def create_quickly(cls, folder: Path, *requirements: str | Path) -> Environment:
        """A new one without pip, with what `requirements` bring; installed by uv, in seconds."""
        _uv("venv", "--python", sys.executable, folder)
        created = cls(folder)
        created.install(*requirements)
        return created

    def install(self, *arguments: str | Path) -> None:
        """Install by uv, also into an environment without pip, and check what is there."""
        _uv("pip", "install", "--python", self.folder, *arguments)
        _uv("pip", "check", "--python", self.folder)

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(
        self, program: str, *arguments: str | Path, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run an installed program; its exit code is the caller's to judge."""
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.folder,
            env=self.variables | dict(variables or {}),
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the running environment without those that would leak in."""
        return {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}

    def must_run(self, program: str, *arguments: str | Path) -> str:
        """Run a program that has to succeed; return what it wrote."""
        done = self.run(program, *arguments)
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def pip(self, *arguments: str | Path) -> str:
        return self.must_run("python", "-m", "pip", "--disable-pip-version-check", *arguments)

    def files_of(self, distribution: str) -> dict[str, str]:
        """Path and recorded hash of every file that the distribution installed; empty if absent."""
        name = distribution.replace("-", "_")
        records = list(self.site_packages.glob(f"{name}-[0-9]*.dist-info/RECORD"))
        if not records:
            return {}
        with records[0].open(newline="") as lines:
            return {path: recorded for path, recorded, _ in csv.reader(lines)}

    def damaged_files_of(self, distribution: str) -> list[str]:
        """Files of the distribution that are missing or are not as it installed them."""
        return [
            path
            for path, recorded in self.files_of(distribution).items()
            if not is_as_recorded(self.site_packages / path, recorded)
        ]


def _uv(*arguments: str | Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "--quiet", "--no-config", *arguments], check=True)


def is_as_recorded(path: Path, recorded: str) -> bool:
    """recorded: `sha256=…` as in RECORD, empty for files that have no hash."""
    if not path.is_file():
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return not recorded or recorded == f"sha256={digest.decode().rstrip('=')}"
