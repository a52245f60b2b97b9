"""Text forms for people: foreign text made harmless, durations, counts and sizes.

Names, messages and attribute values are written by whoever sends spans. What they contain must
never steer the terminal, so every foreign text passes `clean` before it is shown.
Not here: layout (`cli.render`, `cli.tree`).
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from decimal import Decimal

from msgtrace.model.units import KIB, MAX_INT64, NS_PER_MS, NS_PER_S

MAX_SHOWN_CHARS = 300
"""More of one name or message is cut: it would bury the rest."""

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # formatting characters that scripts and emoji need

# DEL and the C1 range: the only control characters that JSON allows unescaped inside a string.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def clean(text: str, *, max_chars: int = MAX_SHOWN_CHARS) -> str:
    r"""`text` on one line with control and other invisible characters spelled out, e.g. \x1b.

    Cut at `max_chars` characters of the original.
    """
    cut = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(_spell_out(character) for character in cut)


def _spell_out(character: str) -> str:
    if unicodedata.category(character) in _UNSAFE_CATEGORIES and character not in _JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character


def terminal_json(document: str) -> str:
    """The same JSON value without a control character that a terminal would obey."""
    return document.translate(_JSON_ESCAPES)


def human_duration(duration_ns: int) -> str:
    """Three digits: 845 µs, 12.5 ms, 1.23 s; from one minute on 2m 05s, 3h 12m, 4d 01h."""
    sign, size_ns = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    for unit_ns, unit in ((1_000, "µs"), (NS_PER_MS, "ms"), (NS_PER_S, "s")):
        limit = 59.95 if unit == "s" else 999.5
        if size_ns < limit * unit_ns:
            return f"{sign}{size_ns / unit_ns:.3g} {unit}"
    return sign + _long_duration(round(size_ns / NS_PER_S))


def _long_duration(total_s: int) -> str:
    minutes, seconds = divmod(total_s, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s"


def local_time(time_ns: int) -> str:
    """The local wall clock to the second, e.g. 2026-03-01 13:00:05."""
    return f"{_local(time_ns):%Y-%m-%d %H:%M:%S}"


def exact_local_time(time_ns: int) -> str:
    """Local, to the millisecond and with the offset: 2026-03-01 13:00:05.123+01:00."""
    return _local(time_ns).isoformat(sep=" ", timespec="milliseconds")


def _local(time_ns: int) -> datetime:
    known_ns = min(max(time_ns, 0), MAX_INT64)
    seconds, fraction_ns = divmod(known_ns, NS_PER_S)
    moment = datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=fraction_ns // 1_000)
    return moment.astimezone()


def counted(count: int, noun: str) -> str:
    """1 trace, 2,000 traces."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def human_tokens(input_tokens: int, output_tokens: int) -> str:
    """In and out: 1,200/30; nothing for none."""
    return f"{input_tokens:,}/{output_tokens:,}" if input_tokens or output_tokens else ""


def human_cost(cost: float, estimated_cost: float) -> str:
    """Three digits, at least cents; ~ where some of it is estimated; nothing for none."""
    if not cost:
        return ""
    mark = "~" if estimated_cost else ""
    shown = f"{cost:,.2f}" if cost >= 1 else f"{cost:.3g}"
    return mark + (f"{cost:.3f}" if "e" in shown and cost >= 0.001 else _without_exponent(shown))


def _without_exponent(number: str) -> str:
    return f"{Decimal(number):f}" if "e" in number else number


def human_size(size_bytes: int) -> str:
    """1.5 MiB."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < KIB:
            figure = f"{size:.3g}" if size < 999.5 else f"{size:,.0f}"
            return f"{figure} {unit}" if unit != "bytes" else counted(size_bytes, "byte")
        size /= KIB
    return f"{size:,.1f} TiB"
