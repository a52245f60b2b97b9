"""Read what deploy/ and the repository's root write in YAML, and check it against its schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.deploy.dockerfile import ROOT

DEPLOY = ROOT / "deploy"


def read_yaml(path: Path) -> Any:
    """The only document of a file."""
    (document,) = read_documents(path)
    return document


def read_documents(path: Path) -> list[Any]:
    """All documents of a file, anchors and merges resolved."""
    return list(YAML(typ="safe", pure=True).load_all(path.read_text()))


def schema_problems(schema: str, *paths: Path) -> str:
    """What a schema of check-jsonschema says against files; empty if they satisfy it."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", schema, *paths], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
