"""What SQLite's errors mean for a write: its data is refused, or it may be tried again."""

from __future__ import annotations

import sqlite3

import pytest

from msgtrace.errors import DataRefused, QueryTimeout, StorageError, StorageUnavailable
from msgtrace.storage.sqlite.connection import translated_errors, translated_write_errors

ABOUT_DATA = [
    "SQLITE_CONSTRAINT",
    "SQLITE_CONSTRAINT_CHECK",
    "SQLITE_CONSTRAINT_NOTNULL",
    "SQLITE_CONSTRAINT_TRIGGER",
    "SQLITE_MISMATCH",
    "SQLITE_TOOBIG",
]
PASSING = [
    "SQLITE_BUSY",
    "SQLITE_BUSY_SNAPSHOT",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_IOERR_WRITE",
    "SQLITE_LOCKED",
    "SQLITE_NOMEM",
    "SQLITE_READONLY",
]
FOR_THE_OPERATOR = [
    "SQLITE_AUTH",
    "SQLITE_CORRUPT",
    "SQLITE_ERROR",
    "SQLITE_INTERNAL",
    "SQLITE_NOTADB",
    "SQLITE_PERM",
    "SQLITE_SCHEMA",
]


def error_of(name: str) -> sqlite3.Error:
    """As the driver raises it."""
    error = sqlite3.OperationalError("secret")
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


@pytest.mark.parametrize("name", ABOUT_DATA)
def test_a_write_is_refused_for_its_data_without_a_word_of_it(name: str) -> None:
    with pytest.raises(DataRefused) as refusal, translated_write_errors():
        raise error_of(name)

    assert str(refusal.value) == f"SQLite refuses the data ({name})"


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.ProgrammingError("type 'secret' is not supported"),
        OverflowError("secret"),
        UnicodeEncodeError("utf-8", "secret", 0, 1, "secret"),
        TypeError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_value_that_the_driver_does_not_take_is_refused_data(error: Exception) -> None:
    with pytest.raises(DataRefused) as refusal, translated_write_errors():
        raise error

    assert str(refusal.value) == f"SQLite cannot take a value ({type(error).__name__})"


@pytest.mark.parametrize("name", [*PASSING, *FOR_THE_OPERATOR, "SQLITE_INTERRUPT"])
def test_no_write_is_given_up_for_anything_else(name: str) -> None:
    with pytest.raises(StorageUnavailable) as refusal, translated_write_errors():
        raise error_of(name)

    assert not isinstance(refusal.value, QueryTimeout)


def test_a_write_without_memory_may_be_tried_again() -> None:
    with pytest.raises(StorageUnavailable), translated_write_errors():
        raise MemoryError


@pytest.mark.parametrize("name", PASSING)
def test_a_read_is_retryable_where_trouble_passes(name: str) -> None:
    with pytest.raises(StorageUnavailable), translated_errors():
        raise error_of(name)


@pytest.mark.parametrize("name", [*ABOUT_DATA, *FOR_THE_OPERATOR])
def test_a_read_that_is_refused_is_final(name: str) -> None:
    with pytest.raises(StorageError), translated_errors():
        raise error_of(name)


def test_an_interrupted_read_ran_too_long() -> None:
    with pytest.raises(QueryTimeout), translated_errors():
        raise error_of("SQLITE_INTERRUPT")
