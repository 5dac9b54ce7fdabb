"""Everything that supervisor, hosts and contexts say to each other: one class for each message.

The supervisor may be root and the application is not: whatever comes to it by the channel may be
made up by the application. So what the supervisor hears is a value of one of these classes with
fields that were looked at, or a NonsenseError. What comes from the supervisor is believed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from socket import socket
from typing import Any, ClassVar, TypeAlias

from ppserver.supervision.channel import Channel, Received

PLACES = ("processes", "threads", "interpreters")
_TEXT_MAX = 1000
_NUMBER_MAX = 2**31 - 1


class NonsenseError(Exception):
    """Something came by the channel that is no message, or that its sender must not say."""


# To the supervisor.


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """By a host: the application is loaded, and its contexts will live in ``place``."""

    KIND: ClassVar = "loaded"
    place: str
    interface: str
    loop: str
    why: str
    addresses: list[list[tuple[str, str]]]  # of each protocol: address, scheme


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """By a host that ends: its import opened what contexts must not share."""

    KIND: ClassVar = "opened"
    interface: str


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """By a host: there is a context with this key, as it was ordered."""

    KIND: ClassVar = "started"
    slot: int
    seat: int | None
    key: int


@dataclasses.dataclass(frozen=True, slots=True)
class Unstarted:
    """By a host: a context that was ordered could not be started."""

    KIND: ClassVar = "unstarted"
    slot: int
    seat: int | None
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """By a host: a context has ended, with an exit code as of :mod:`subprocess`."""

    KIND: ClassVar = "ended"
    key: int
    code: int


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """By a context: it is "ready", "draining", wants to "retire", or wants the server to "stop"."""

    KINDS: ClassVar = ("ready", "draining", "retire", "stop")
    kind: str
    key: int


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """By a context that imports the application for itself: what that is."""

    KIND: ClassVar = "imported"
    key: int
    interface: str
    loop: str


# To a host.


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Start a context; its sockets come along, of these kinds and tags."""

    KIND: ClassVar = "start"
    slot: int
    seat: int | None
    kinds: list[str]
    tags: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Tell:
    """Pass "stop", "quit" or "reopen" on to a context. A host passes it to a guest like this."""

    KIND: ClassVar = "tell"
    key: int
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class Gone:
    """A context that is a process has ended, as the supervisor, its parent, knows."""

    KIND: ClassVar = "gone"
    key: int


@dataclasses.dataclass(frozen=True, slots=True)
class Reopen:
    """Open log files anew."""

    KIND: ClassVar = "reopen"


@dataclasses.dataclass(frozen=True, slots=True)
class Leave:
    """End after the last context."""

    KIND: ClassVar = "leave"


# Between a host and a guest.


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A seat in plain values. Its descriptors stay the host's."""

    board: int
    index: int
    inbox: int
    doors: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Birth:
    """All that a guest is told when it begins."""

    slot: int
    seat: int | None
    key: int
    settings: dict[str, Any]
    place: Place | None
    turn: int  # the descriptor that gives the turn back
    # These descriptors become the guest's own.
    listening: list[tuple[int, str, int]]  # descriptor, kind, tag
    channel: int
    supervisor: int
    errands: int  # -1: there is no program to do any

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Birth:
        """The opposite of :func:`dataclasses.asdict`, by JSON."""
        place = fields["place"]
        listening = [(fd, kind, tag) for fd, kind, tag in fields["listening"]]
        return cls(
            **{
                **fields,
                "place": None if place is None else Place(**place),
                "listening": listening,
            }
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """By a guest: it is over, and whether it came so far as to load."""

    KIND: ClassVar = "finished"
    code: int
    loaded: bool


ToSupervisor: TypeAlias = Loaded | Opened | Started | Unstarted | Ended | Said | Imported
ToHost: TypeAlias = Start | Tell | Gone | Reopen | Leave
_TO_HOST: tuple[type[ToHost], ...] = (Start, Tell, Gone, Reopen, Leave)


def send(
    channel: Channel, message: ToSupervisor | ToHost | Finished, sockets: Sequence[socket] = ()
) -> bool:
    """Send a message; False if nobody is there any more."""
    fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    kind = message.kind if isinstance(message, Said) else message.KIND
    return channel.send(**{"kind": kind, **fields}, sockets=sockets)


def read_by_host(received: Received) -> ToHost:
    """What the supervisor says to a host, or a host to a guest."""
    fields = received.message
    kind = fields.pop("kind")
    (cls,) = (one for one in _TO_HOST if kind == one.KIND)
    return cls(**fields)


def read_finished(received: Received) -> Finished:
    """What a guest says at its end."""
    fields = received.message
    return Finished(fields["code"], fields["loaded"])


def read(received: Received) -> ToSupervisor:
    """What the supervisor is told; NonsenseError if it is no message."""
    try:
        return _read(received.message)
    except ValueError as error:
        raise NonsenseError(str(error)) from None


def _read(message: dict[str, Any]) -> ToSupervisor:
    kind = message.get("kind")
    if kind in Said.KINDS:
        return Said(kind, _number(message, "key"))
    if kind == Started.KIND:
        return Started(_number(message, "slot"), _seat(message), _number(message, "key"))
    if kind == Unstarted.KIND:
        return Unstarted(_number(message, "slot"), _seat(message), _text(message, "why"))
    if kind == Ended.KIND:
        return Ended(_number(message, "key"), _number(message, "code", least=-255))
    if kind == Loaded.KIND:
        return _loaded(message)
    if kind == Opened.KIND:
        return Opened(_interface(message))
    if kind == Imported.KIND:
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
