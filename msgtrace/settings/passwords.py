"""Passwords of the database: put into its URL from a file, and kept out of what people see."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

from msgtrace.errors import InvalidSetting
from msgtrace.settings.table import variable_name

_PASSWORD_FILE_CHARS = 4_096
"""What is read of a password's file: a wrong name may lead to an endless one."""

_POSTGRES_URLS = ("postgresql://", "postgres://")
_PORT_AND_QUERY = re.compile(r"\d+/[^@?]*\?")
_PASSWORD_IN_QUERY = re.compile(r"([?&]\w*password=)[^&]*", re.IGNORECASE)


def mask_password(url: str) -> str:
    """The URL with every password in it replaced by ***."""
    scheme = url[: url.find("://") + 3] if "://" in url else ""
    place = url.removeprefix(scheme)
    credentials, at, host = place.rpartition("@")
    user, colon, password = credentials.partition(":")
    # Up to the last "@", as a password that nobody percent-encoded may hold any character.
    if colon and not _PORT_AND_QUERY.match(password):
        place = f"{user}:***{at}{host}"
    return scheme + _PASSWORD_IN_QUERY.sub(r"\1***", place)


def with_password(url: str, path: Path) -> str:
    """The URL with the password that the file holds. Raises InvalidSetting."""
    variable = variable_name("database_password_file")
    if not url.startswith(_POSTGRES_URLS):
        raise InvalidSetting(variable, "is for PostgreSQL: MSGTRACE_DATABASE_URL names another")
    if mask_password(url) != url:
        raise InvalidSetting(
            variable, "is set, and MSGTRACE_DATABASE_URL holds a password too: leave one out"
        )
    try:
        with path.open(encoding="utf-8") as file:
            password = file.read(_PASSWORD_FILE_CHARS).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidSetting(variable, f"cannot read {path}: {reason}") from error
    if not password or "\n" in password:
        raise InvalidSetting(variable, f"{path} must hold one line, the password")
    quoted, place = urllib.parse.quote(password, safe=""), urllib.parse.urlsplit(url).netloc
    user, at, hosts = place.rpartition("@")
    if at:
        # As if the URL had named it: the masked URL, by which a spill is known, is the same.
        return url.replace(f"//{place}", f"//{user}:{quoted}@{hosts}", 1)
    return f"{url}{'&' if '?' in url else '?'}password={quoted}"
