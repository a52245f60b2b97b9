"""cargo, asked so that a registry that refuses or says nothing holds up no test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

NATIVE = Path(__file__).parents[2] / "native"

_BRIEFLY = {"CARGO_NET_RETRY": "1", "CARGO_HTTP_TIMEOUT": "10"}


def cargo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What cargo says of the native decoder's crate; it must be installed."""
    return subprocess.run(
        ["cargo", *arguments, "--locked", "--manifest-path", str(NATIVE / "Cargo.toml")],
        env=os.environ | _BRIEFLY,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def has_packages() -> bool:
    """Whether cargo has the crates that the native decoder needs, or can have them."""
    return cargo("fetch").returncode == 0
