"""Header fields: a multi-dict whose names ignore case, and what may stand in names and values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_NOT_A_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


def checked_name(name: str) -> str:
    """The name, if it is a token (RFC 9110 section 5.1). Raises ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a header field: {name!r}")
    return name


def checked_value(value: str) -> str:
    """The value without white space around it, if it can be one (RFC 9110 section 5.5).

    Raises ValueError for control bytes (CR, LF and NUL above all) and for what is not Latin-1.
    """
    if _NOT_A_VALUE.search(value):
        raise ValueError(f"not the value of a header field: {value!r}")
    return value.strip(" \t")


class Headers:
    """Header fields in their order; names are looked up whatever their case.

    ``headers["host"]`` is the first field of that name, `get_all` gives every one. What is no
    attribute is a field as well, None if it is not there: ``headers.user_agent``. Iterating gives
    the names as they were written, once for each field. Names and values are checked when they are
    set: ValueError.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: list[tuple[str, str, str]] = []  # lower-case name, name, value
        for name, value in fields:
            self.add(name, value)

    @classmethod
    def of_request(cls, fields: Iterable[tuple[bytes, bytes]]) -> Headers:
        """From what the parser has checked: (name, value) in Latin-1."""
        headers = cls()
        for raw, value in fields:
            name = raw.decode("latin-1")
            headers._fields.append((name.lower(), name, value.decode("latin-1")))
        return headers

    def add(self, name: str, value: str) -> None:
        """Append a field, beside those that have its name already. Raises ValueError."""
        self._fields.append((checked_name(name).lower(), name, checked_value(value)))

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of the first field of that name, or the default."""
        lower = name.lower()
        for key, _, value in self._fields:
            if key == lower:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """The values of all fields of that name, in order; empty if there is none."""
        lower = name.lower()
        return [value for key, _, value in self._fields if key == lower]

    def joined(self, name: str) -> str | None:
        """All fields of that name as one list (RFC 9110 section 5.3); None if there is none."""
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __getattr__(self, name: str) -> str | None:
        if name.startswith("_"):  # what copy, pickle and others look for
            raise AttributeError(name)
        return self.get(name.replace("_", "-"))

    def __setitem__(self, name: str, value: str) -> None:
        """One field instead of all that have the name; it stands at the end. Raises ValueError."""
        field = (checked_name(name).lower(), name, checked_value(value))
        self._fields = [*(old for old in self._fields if old[0] != field[0]), field]

    def __delitem__(self, name: str) -> None:
        """Remove all fields of the name. Raises KeyError if there is none."""
        kept = [field for field in self._fields if field[0] != name.lower()]
        if len(kept) == len(self._fields):
            raise KeyError(name)
        self._fields = kept

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for _, name, _ in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def items(self) -> list[tuple[str, str]]:
        """(name, value) of every field, in order."""
        return [(name, value) for _, name, value in self._fields]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(k, v) for k, _, v in self._fields] == [(k, v) for k, _, v in other._fields]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"
