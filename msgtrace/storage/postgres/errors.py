"""What PostgreSQL's and asyncpg's errors mean.

Of a read: retry it, or not. Of a write: it may succeed later, or it is the data that is refused.
Messages name the SQLSTATE and the constraint, not the server's detail: that may quote a row, and
rows hold prompts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg

from msgtrace.errors import DataRefused, QueryTimeout, StorageError, StorageUnavailable

_RETRYABLE_CLASSES = frozenset(("08", "40", "53", "55", "57", "58"))
"""Connection, rollback, resources, object state, intervention, system.

SQLSTATE classes of passing trouble.
"""

_TROUBLE_CLASSES = frozenset((
    "00", "01", "02", "03", "08", "0A", "0B", "0L", "0P", "24", "25", "26", "28", "2B", "2D",
    "34", "3B", "3D", "3F", "40", "42", "53", "55", "57", "58", "72", "F0", "HV", "XX",
))  # fmt: skip
"""SQLSTATE classes of PostgreSQL's that say nothing about the rows.

A missing table or right is among them: it is for the operator to mend, and the data is not to be
given up for it. All other classes do speak of the rows: 21, 22, 23, 44 and 54 (cardinality, data,
integrity, check option, program limit), those of code that runs for a row (09, 20, 27, 2F, 38, 39,
P0), and those that PostgreSQL does not define: a trigger of the operator's has raised them.
Source: PostgreSQL's documentation, appendix A.
"""

_DRIVER_TROUBLE = (
    asyncpg.InterfaceError,
    # Also when a connection breaks while asyncpg takes it back: its state then surprises asyncpg.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

_BAD_VALUE = (TypeError, ValueError, OverflowError)
"""What asyncpg raises, bare, for a value that its column's type cannot hold."""

_READ_ONLY = "25006"


def is_retryable(error: BaseException) -> bool:
    """Whether the same statement may succeed later."""
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        return sqlstate[:2] in _RETRYABLE_CLASSES or sqlstate == _READ_ONLY
    return isinstance(error, _DRIVER_TROUBLE)


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's exceptions into ours; the original stays in `__cause__`.

    For writes there is `translated_write_errors`.
    """
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        raise QueryTimeout(
            "the query took longer than its limit; narrow it by start and end"
        ) from error
    except (asyncpg.PostgresError, *_DRIVER_TROUBLE) as error:
        if is_retryable(error):
            raise StorageUnavailable(f"PostgreSQL is not available ({_kind(error)})") from error
        raise StorageError(f"PostgreSQL refused ({_kind(error)})") from error
    except _BAD_VALUE as error:
        raise StorageError(f"PostgreSQL cannot take a value ({type(error).__name__})") from error


@contextlib.contextmanager
def translated_write_errors() -> Iterator[None]:
    """Turn the exceptions of a write into DataRefused or StorageUnavailable.

    The original stays in `__cause__`. What is neither an error of the database nor of a value
    passes: it is a fault of ours.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "XX")[:2] not in _TROUBLE_CLASSES:
            raise DataRefused(f"PostgreSQL refuses the data ({_kind(error)})") from error
        raise StorageUnavailable(f"PostgreSQL takes no writes now ({_kind(error)})") from error
    except (*_DRIVER_TROUBLE, MemoryError) as error:  # before values: some are ValueErrors as well
        raise StorageUnavailable(f"PostgreSQL is not available ({_kind(error)})") from error
    except _BAD_VALUE as error:
        raise DataRefused(f"PostgreSQL cannot take a value ({type(error).__name__})") from error


def _kind(error: BaseException) -> str:
    """The error's class, its SQLSTATE and the constraint that it names."""
    kind = f"{type(error).__name__}, SQLSTATE {getattr(error, 'sqlstate', None) or 'none'}"
    constraint = getattr(error, "constraint_name", None)
    return f"{kind}, constraint {constraint}" if constraint else kind
