"""Units and the text forms of times.

Times are integer nanoseconds since the Unix epoch everywhere inside; they turn into text only at
the edges.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

KIB = 1024
MIB = 1024 * KIB

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_S

MAX_INT64 = 2**63 - 1

NS_PER_AGE_UNIT = {
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
    "d": NS_PER_DAY,
    "w": 7 * NS_PER_DAY,
}

_AGE = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)


def rfc3339(time_ns: int) -> str:
    """`time_ns` in UTC with nine digits of fraction, e.g. 2026-03-01T12:00:00.000000001Z.

    Any value of 0..2**63-1 (the year 2262) is representable.
    """
    seconds, fraction_ns = divmod(time_ns, NS_PER_S)
    return f"{_rfc3339_second(seconds)}.{fraction_ns:09d}Z"


@lru_cache(maxsize=4_096)
def _rfc3339_second(seconds: int) -> str:
    """The whole second; the times of a trace share few."""
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"


def parse_time_ns(text: str) -> int:
    """Nanoseconds from an RFC 3339 time with an offset, or from decimal Unix nanoseconds.

    Raises ValueError for anything else, and for times before 1970 or after 2262.
    """
    time_ns = int(text) if text.isascii() and text.isdigit() else _parse_rfc3339(text)
    if not 0 <= time_ns <= MAX_INT64:
        raise ValueError("outside 1970..2262")
    return time_ns


def parse_age_ns(text: str) -> int:
    """Nanoseconds from a number of minutes, hours, days or weeks: 90m, 36h, 30d, 8w.

    Raises ValueError for anything else, and for no time at all.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise ValueError("not an age such as 36h, 30d or 8w")
    return int(match[1]) * NS_PER_AGE_UNIT[match[2]]


def _parse_rfc3339(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time such as 2026-03-01T12:00:00Z")
    date, clock, fraction, offset = match.groups()
    moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * NS_PER_S + int((fraction or "0").ljust(9, "0"))
