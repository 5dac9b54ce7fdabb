"""What a host and the places where it keeps contexts know of each other."""

from __future__ import annotations

import abc
import dataclasses

from ppserver.app.loader import Application
from ppserver.config import Config
from ppserver.context.listeners import Listening
from ppserver.context.main_thread import HostErrands
from ppserver.context.seats import Seats
from ppserver.freezing import FreezeReport
from ppserver.supervision.channel import Channel, SignalPipe


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What a new context gets: its slot, its seat if there is one, and its sockets."""

    slot: int
    seat: int | None
    listening: list[Listening]


class Place(abc.ABC):
    """Where a host keeps its contexts. A context's key is the kernel's id of its process or
    thread. All methods are for the host's main thread."""

    @staticmethod
    @abc.abstractmethod
    def prepare(config: Config, application: Application | None) -> FreezeReport:
        """Make what is loaded fit for the contexts of such a place, before there is one."""

    @abc.abstractmethod
    def __init__(self, premises: Premises) -> None: ...

    @abc.abstractmethod
    def start(self, order: Order) -> int:
        """Start a context and return its key; it says "ready" and the rest by itself.

        OSError or RuntimeError if there is no room for one; then nothing is left of it.
        """

    @abc.abstractmethod
    def announced(self, key: int) -> None:
        """The supervisor has been told of that context."""

    @abc.abstractmethod
    def ended(self) -> list[tuple[int, int]]:
        """(key, exit code) of those that ended since the last call; of processes the supervisor
        knows, whose children they are."""

    @abc.abstractmethod
    def tell(self, key: int, what: str) -> None:
        """Pass "stop", "quit" or "reopen" on to a context; the supervisor tells processes."""

    @abc.abstractmethod
    def abandon(self) -> None:
        """The supervisor is gone: end everything at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Premises:
    """What a place is made from."""

    config: Config
    application: Application | None  # None: each context loads it
    seats: Seats
    channel: Channel
    pipe: SignalPipe
    errands: HostErrands | None  # of a program of the parallel API
    supervisor: int  # its process number
