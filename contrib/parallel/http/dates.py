"""HTTP dates (RFC 9110 section 5.6.7): made in one form, read in all three."""

from __future__ import annotations

import email.utils
import time

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def format_date(timestamp: float) -> str:
    """Seconds since 1970 as IMF-fixdate: ``Sun, 06 Nov 1994 08:49:37 GMT``, in no locale."""
    t = time.gmtime(timestamp)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )


class _Latest:
    """The text of the current second. The triple is replaced as a whole, so threads may race."""

    value: tuple[int, str, bytes] = (-1, "", b"")


def _now() -> tuple[int, str, bytes]:
    second = int(time.time())
    latest = _Latest.value
    if latest[0] != second:
        text = format_date(second)
        latest = _Latest.value = (second, text, text.encode("ascii"))
    return latest


def date_time_string(timestamp: float | None = None) -> str:
    """A time (seconds since 1970, now by default) as Date and Last-Modified have it.

    The text for now is made once a second.
    """
    return _now()[1] if timestamp is None else format_date(timestamp)


def now_bytes() -> bytes:
    """The value of a Date field."""
    return _now()[2]


def parse_date(text: str) -> int | None:
    """Seconds since 1970 of any of the three forms, or None for what is no date.

    A recipient takes all of them (RFC 9110 section 5.6.7) and ignores a condition with an invalid
    one (section 13.1.3).
    """
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
