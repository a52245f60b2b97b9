"""The audit itself: it finds each kind of wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from msgtrace.otlp.encodings import PROTOBUF, decode_as
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.faults.audit import audit
from tests.faults.load import Load

WRONGS = {
    "lost": ["DELETE FROM spans WHERE rowid = 5"],
    "duplicated": [
        "DROP INDEX spans_identity",
        "INSERT INTO spans SELECT * FROM spans WHERE rowid = 5",
    ],
    "never sent": ["UPDATE spans SET span_id = x'0101000000000063' WHERE rowid = 5"],
    "not as sent": ["UPDATE spans SET name = 'another' WHERE rowid = 5"],
    "wrong total": ["UPDATE traces SET input_tokens = input_tokens + 1 WHERE rowid = 2"],
}


@pytest.fixture
def load() -> Load:
    return Load([], seed=1, most_spans=20)


@pytest.fixture
def url(tmp_path: Path, load: Load) -> str:
    """A database with what two senders know to be acknowledged."""
    url = f"sqlite:///{tmp_path / 'msgtrace.db'}"

    async def store() -> None:
        async with open_storage(Settings(database_url=url)) as storage:
            for _ in range(20):
                for sender in (0, 1):
                    await storage.write_spans([decode_as(PROTOBUF, load._begin_request(sender))])
                    load._end_request(sender)

    asyncio.run(store())
    return url


def test_what_is_right_is_clean(url: str, load: Load) -> None:
    found = audit(url, load)

    found.require_clean()
    assert found.acknowledged == found.stored == load.acknowledged_spans > 100


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_named(wrong: str, url: str, load: Load) -> None:
    database = contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///")))
    with database as connection, connection:
        for statement in WRONGS[wrong]:
            connection.execute(statement)

    with pytest.raises(AssertionError, match=wrong):
        audit(url, load).require_clean()
