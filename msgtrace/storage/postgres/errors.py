"""What PostgreSQL's and asyncpg's errors mean for the sender: retry, or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg

from msgtrace.errors import QueryTimeout, StorageError, StorageUnavailable

_RETRYABLE_CLASSES = frozenset(("08", "40", "53", "55", "57", "58"))
"""Connection, rollback, resources, object state, intervention, system.

SQLSTATE classes of passing trouble.
"""

_DRIVER_TROUBLE = (
    asyncpg.InterfaceError,
    # Also when a connection breaks while asyncpg takes it back: its state then surprises asyncpg.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

_READ_ONLY = "25006"
_QUERY_CANCELED = "57014"


def is_retryable(error: BaseException) -> bool:
    """Whether the same statement may succeed later."""
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        return sqlstate[:2] in _RETRYABLE_CLASSES or sqlstate == _READ_ONLY
    return isinstance(error, _DRIVER_TROUBLE)


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's exceptions into ours; the original stays in `__cause__`.

    Messages name the SQLSTATE, not the server's detail: that may quote a row, and rows hold
    prompts.
    """
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        raise QueryTimeout(
            "the query took longer than its limit; narrow it by start and end"
        ) from error
    except (asyncpg.PostgresError, *_DRIVER_TROUBLE) as error:
        reason = f"{type(error).__name__}, SQLSTATE {getattr(error, 'sqlstate', None) or 'none'}"
        if is_retryable(error):
            raise StorageUnavailable(f"PostgreSQL is not available ({reason})") from error
        raise StorageError(f"PostgreSQL refused ({reason})") from error
    except (TypeError, ValueError, OverflowError) as error:
        # asyncpg raises these, bare, for a value that its column's type cannot hold.
        raise StorageError(f"PostgreSQL cannot take a value ({type(error).__name__})") from error
