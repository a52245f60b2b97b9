"""These tests start the real programs, as those of tests/end_to_end do."""

from __future__ import annotations

from tests.end_to_end.conftest import (
    forget_ended_processes,
    no_proxy,
    pytest_runtest_makereport,
    service,
    shared_database_url,
)

__all__ = [
    "forget_ended_processes",
    "no_proxy",
    "pytest_runtest_makereport",
    "service",
    "shared_database_url",
]
