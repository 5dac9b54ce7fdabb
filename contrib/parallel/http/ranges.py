"""Byte ranges and conditional requests (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import re
import time

from parallel.http.dates import parse_date
from parallel.http.headers import Headers

# Forty digits are more than any file has bytes, and few enough for int().
_RANGE = re.compile(r"(?:[Bb][Yy][Tt][Ee][Ss]=)?[ \t]*([0-9]{0,40})-([0-9]{0,40})[ \t]*", re.ASCII)
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


class InvalidRangeRequest(ValueError):  # noqa: N818  PyParallel's name
    """What is no range of bytes, or one that lies outside of the file."""


class RangedRequest:
    """One range of bytes: ``5-10`` (both inclusive), ``5-`` (to the end) or ``-5`` (the last five).

    ``bytes=`` may stand before it, as in a Range field. ``first_byte`` and ``last_byte`` are what
    was written, None where nothing was; `resolve` makes positions of them. Raises
    InvalidRangeRequest for anything else: several ranges, other units, a first byte behind the
    last.
    """

    __slots__ = ("first_byte", "last_byte")

    def __init__(self, text: str) -> None:
        match = _RANGE.fullmatch(text)
        if match is None or not (match[1] or match[2]):
            raise InvalidRangeRequest(f"not a range of bytes: {text[:80]!r}")
        self.first_byte = int(match[1]) if match[1] else None
        self.last_byte = int(match[2]) if match[2] else None
        if match[1] and match[2] and int(match[1]) > int(match[2]):
            raise InvalidRangeRequest(f"a range that ends before it begins: {text[:80]!r}")

    def __repr__(self) -> str:
        first = "" if self.first_byte is None else self.first_byte
        last = "" if self.last_byte is None else self.last_byte
        return f"RangedRequest('{first}-{last}')"

    def resolve(self, size: int) -> tuple[int, int]:
        """Positions of the first and the last byte, both inclusive, in a file of ``size`` bytes.

        A range that goes beyond the end stops there. Raises InvalidRangeRequest if nothing of it
        is in the file, which is 416 (RFC 9110 section 14.1.2).
        """
        if self.first_byte is None:
            length = min(self.last_byte or 0, size)
            first, last = size - length, size - 1
        else:
            first = self.first_byte
            last = size - 1 if self.last_byte is None else min(self.last_byte, size - 1)
        if first > last:
            raise InvalidRangeRequest(f"no byte of {self!r} is among {size}")
        return first, last


def _listed(value: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags names ours (RFC 9110 section 8.8.3.2)."""
    if value == "*":
        return True
    for listed in _ETAG.findall(value):
        if listed.startswith("W/"):
            if weak and listed[2:] == etag:
                return True
        elif listed == etag:
            return True
    return False


def precondition(headers: Headers, etag: str, modified: int) -> int:
    """The status that conditions of a GET or HEAD call for: 200, 304 or 412.

    ``etag`` is strong and quoted, ``modified`` in seconds since 1970. In the order of RFC 9110
    section 13.2.2; a condition that is no date counts as not there.
    """
    if (tags := headers.joined("If-Match")) is not None:
        if not _listed(tags, etag, weak=False):
            return 412
    elif (text := headers.get("If-Unmodified-Since")) is not None:
        since = parse_date(text)
        if since is not None and modified > since:
            return 412
    if (tags := headers.joined("If-None-Match")) is not None:
        if _listed(tags, etag, weak=True):
            return 304
    elif (text := headers.get("If-Modified-Since")) is not None:
        since = parse_date(text)
        if since is not None and modified <= since:
            return 304
    return 200


def range_still_holds(headers: Headers, etag: str, modified: int) -> bool:
    """Whether If-Range, if there is one, lets a Range count (RFC 9110 section 13.1.5).

    A tag must be the same and strong. A date must be the same, and older than this second: what
    has just been written may be written again within it (section 8.8.2.2).
    """
    text = headers.get("If-Range")
    if text is None:
        return True
    if '"' in text:
        return text == etag
    return parse_date(text) == modified and modified < int(time.time())
