"""Which of the driver's errors tell the sender to retry."""

from __future__ import annotations

import asyncpg
import pytest

from msgtrace.errors import StorageError, StorageUnavailable
from msgtrace.storage.postgres.errors import translated_errors


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 11"),
        asyncpg.CannotConnectNowError("shutting down"),
        asyncpg.DiskFullError("no room"),
        asyncpg.ReadOnlySQLTransactionError("read only"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_that_passes_is_retryable(error: Exception) -> None:
    with pytest.raises(StorageUnavailable), translated_errors():
        raise error


def test_refused_data_is_final() -> None:
    with pytest.raises(StorageError), translated_errors():
        raise asyncpg.InvalidTextRepresentationError("bad json")
