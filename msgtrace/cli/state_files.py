"""Where an export or an import stopped, kept in a small file until it is done.

A state is written whole or not at all: after `kill -9` the one before it is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

State = TypeVar("State", bound=msgspec.Struct)


def read_state(path: Path, kind: type[State]) -> State | None:
    """The state that was written, None if there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_state(path: Path, state: msgspec.Struct) -> None:
    """Keep it. Raises OSError."""
    part = path.with_name(f"{path.name}.new")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(state))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
