"""What hosts and contexts tell the supervisor, read without trust.

The supervisor may be root and the application is not: whatever comes by the channel may be made up
by the application. So a message is a value of one of these classes, or a NonsenseError.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ppserver.supervision.channel import Received

PLACES = ("processes", "threads", "interpreters")
_TEXT_MAX = 1000
_NUMBER_MAX = 2**31 - 1


class NonsenseError(Exception):
    """Something came by the channel that is no message, or that its sender must not say."""


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """By a host: the application is loaded, and its contexts will live in ``place``."""

    place: str
    interface: str
    loop: str
    why: str
    addresses: list[list[tuple[str, str]]]  # of each protocol: address, scheme


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """By a host that ends: its import opened what contexts must not share."""

    interface: str


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """By a host: there is a context with this key, as it was ordered."""

    slot: int
    seat: int | None
    key: int


@dataclasses.dataclass(frozen=True, slots=True)
class Unstarted:
    """By a host: a context that was ordered could not be started."""

    slot: int
    seat: int | None
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """By a host: a context has ended, with an exit code as of :mod:`subprocess`."""

    key: int
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """By a context: it is "ready", "draining", wants to "retire", or wants the server to "stop"."""

    kind: str
    key: int


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """By a context that imports the application for itself: what that is."""

    key: int
    interface: str
    loop: str


Message = Loaded | Opened | Started | Unstarted | Ended | Said | Imported


def read(received: Received) -> Message:
    """The message; NonsenseError if it is none."""
    try:
        return _read(received.message)
    except ValueError as error:
        raise NonsenseError(str(error)) from None


def _read(message: dict[str, Any]) -> Message:
    kind = message.get("kind")
    if kind in ("ready", "draining", "retire", "stop"):
        return Said(kind, _number(message, "key"))
    if kind == "started":
        return Started(_number(message, "slot"), _seat(message), _number(message, "key"))
    if kind == "unstarted":
        return Unstarted(_number(message, "slot"), _seat(message), _text(message, "why"))
    if kind == "ended":
        return Ended(_number(message, "key"), _number(message, "code", least=-255))
    if kind == "loaded":
        return _loaded(message)
    if kind == "opened":
        return Opened(_interface(message))
    if kind == "imported":
        return Imported(_number(message, "key"), _interface(message), _text(message, "loop"))
    raise ValueError(f"a message of no known kind: {str(kind)[:40]!r}")


def _loaded(message: dict[str, Any]) -> Loaded:
    texts = {name: _text(message, name) for name in ("place", "interface", "loop", "why")}
    if texts["place"] not in PLACES:
        raise ValueError(f"no such place: {texts['place']!r}")
    addresses = []
    for one in _list(message.get("addresses")):
        pairs = [_list(pair) for pair in _list(one)]
        if not all(len(pair) == 2 and all(isinstance(t, str) for t in pair) for pair in pairs):
            raise ValueError("addresses that are none")
        addresses.append([(pair[0], pair[1]) for pair in pairs])
    return Loaded(addresses=addresses, **texts)


def _interface(message: dict[str, Any]) -> str:
    interface = _text(message, "interface")
    if interface not in ("asgi", "wsgi"):
        raise ValueError(f"no such interface: {interface[:40]!r}")
    return interface


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"no list: {str(value)[:40]!r}")
    return value


def _number(message: dict[str, Any], name: str, least: int = 0) -> int:
    value = message.get(name)
    if type(value) is not int or not least <= value <= _NUMBER_MAX:
        raise ValueError(f"{name} is no number: {str(value)[:40]!r}")
    return value


def _seat(message: dict[str, Any]) -> int | None:
    return None if message.get("seat") is None else _number(message, "seat")


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value[:_TEXT_MAX]
