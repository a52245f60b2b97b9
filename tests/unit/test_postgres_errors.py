"""What the driver's errors mean: retry a read or not; refuse a write's data or try it again."""

from __future__ import annotations

import ssl

import asyncpg
import pytest
from asyncpg.exceptions import ClientConfigurationError

from msgtrace.errors import DataRefused, QueryTimeout, StorageError, StorageUnavailable
from msgtrace.storage.postgres.errors import translated_errors, translated_write_errors

PASSING: list[Exception] = [
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 11"),
    asyncpg.ConnectionDoesNotExistError("connection was closed"),  # 08
    asyncpg.SerializationError("could not serialize"),  # 40
    asyncpg.DeadlockDetectedError("deadlock"),  # 40
    asyncpg.DiskFullError("no room"),  # 53
    asyncpg.TooManyConnectionsError("too many clients"),  # 53
    asyncpg.OutOfMemoryError("out of memory"),  # 53
    asyncpg.LockNotAvailableError("lock timeout"),  # 55
    asyncpg.CannotConnectNowError("shutting down"),  # 57
    asyncpg.AdminShutdownError("terminated"),  # 57
    asyncpg.PostgresIOError("could not write"),  # 58
    asyncpg.ReadOnlySQLTransactionError("read only"),  # 25006
    ConnectionResetError(),
    TimeoutError(),
]

FOR_THE_OPERATOR: list[Exception] = [
    asyncpg.FeatureNotSupportedError("no"),  # 0A
    asyncpg.InvalidTransactionStateError("no"),  # 25
    asyncpg.IdleInTransactionSessionTimeoutError("no"),  # 25
    asyncpg.InvalidAuthorizationSpecificationError("role may not log in"),  # 28
    asyncpg.InvalidPasswordError("password authentication failed"),  # 28
    asyncpg.InvalidCatalogNameError("no such database"),  # 3D
    asyncpg.InvalidSchemaNameError("no such schema"),  # 3F
    asyncpg.UndefinedTableError("no such table"),  # 42
    asyncpg.UndefinedColumnError("no such column"),  # 42
    asyncpg.InsufficientPrivilegeError("permission denied"),  # 42
    asyncpg.InternalServerError("cache lookup failed"),  # XX
    asyncpg.DataCorruptedError("damaged page"),  # XX
    asyncpg.IndexCorruptedError("damaged index"),  # XX
    ClientConfigurationError("a ValueError as well"),
    ssl.SSLCertVerificationError("a ValueError as well"),
    MemoryError(),
]

ABOUT_DATA: list[Exception] = [
    asyncpg.CardinalityViolationError("twice"),  # 21
    asyncpg.DataError("invalid input for query argument $1: secret"),  # 22
    asyncpg.InvalidTextRepresentationError("invalid input syntax for type json: secret"),  # 22
    asyncpg.NumericValueOutOfRangeError("bigint out of range"),  # 22
    asyncpg.CharacterNotInRepertoireError("invalid byte sequence"),  # 22
    asyncpg.NotNullViolationError("null value: secret"),  # 23
    asyncpg.CheckViolationError("violates check constraint: secret"),  # 23
    asyncpg.UniqueViolationError("duplicate key: secret"),  # 23
    asyncpg.WithCheckOptionViolationError("secret"),  # 44
    asyncpg.ProgramLimitExceededError("index row size"),  # 54
    asyncpg.StatementTooComplexError("stack depth"),  # 54
    asyncpg.RaiseError("secret, said by a trigger"),  # P0
    TypeError("secret"),
    ValueError("secret"),
    OverflowError("secret"),
    UnicodeEncodeError("utf-8", "secret", 0, 1, "secret"),
]


def raised_by_a_trigger(sqlstate: str) -> asyncpg.PostgresError:
    """RAISE EXCEPTION USING ERRCODE = …"""
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": sqlstate, "M": "secret"})
    return error


def name_of(error: Exception) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", PASSING, ids=name_of)
def test_trouble_that_passes_is_retryable(error: Exception) -> None:
    for translated in (translated_errors, translated_write_errors):
        with pytest.raises(StorageUnavailable), translated():
            raise error


@pytest.mark.parametrize("error", FOR_THE_OPERATOR, ids=name_of)
def test_no_write_is_given_up_for_what_an_operator_can_mend(error: Exception) -> None:
    with pytest.raises(StorageUnavailable, match=name_of(error)), translated_write_errors():
        raise error


@pytest.mark.parametrize("error", ABOUT_DATA, ids=name_of)
def test_a_write_is_refused_for_its_data_without_a_word_of_it(error: Exception) -> None:
    with pytest.raises(DataRefused, match=name_of(error)) as refusal, translated_write_errors():
        raise error

    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is error


@pytest.mark.parametrize("sqlstate", ["MY001", "U0001", "99999", "09000", "20000", "38001"])
def test_what_a_trigger_raises_by_a_state_of_its_own_is_about_the_row(sqlstate: str) -> None:
    with pytest.raises(DataRefused, match=sqlstate) as refusal, translated_write_errors():
        raise raised_by_a_trigger(sqlstate)

    assert "secret" not in str(refusal.value)


def test_a_refusal_names_the_state_and_the_constraint() -> None:
    error = asyncpg.CheckViolationError("secret")
    error.constraint_name = "no_poison"

    with pytest.raises(DataRefused) as refusal, translated_write_errors():
        raise error

    said = "PostgreSQL refuses the data (CheckViolationError, SQLSTATE 23514, constraint no_poison)"
    assert str(refusal.value) == said


def test_a_cancelled_read_ran_too_long_and_a_cancelled_write_may_be_tried_again() -> None:
    cancelled = asyncpg.QueryCanceledError("canceling statement due to user request")

    with pytest.raises(QueryTimeout), translated_errors():
        raise cancelled
    with pytest.raises(StorageUnavailable) as refusal, translated_write_errors():
        raise cancelled

    assert not isinstance(refusal.value, QueryTimeout)
    assert "57014" in str(refusal.value)


@pytest.mark.parametrize("error", [*FOR_THE_OPERATOR[:-3], *ABOUT_DATA], ids=name_of)
def test_a_read_that_is_refused_is_final(error: Exception) -> None:
    with pytest.raises(StorageError), translated_errors():
        raise error


@pytest.mark.parametrize("error", [KeyError("a bug"), AttributeError("a bug")], ids=name_of)
def test_a_fault_of_ours_passes(error: Exception) -> None:
    with pytest.raises(type(error)), translated_write_errors():
        raise error
