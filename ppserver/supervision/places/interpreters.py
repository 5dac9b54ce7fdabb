"""Contexts in subinterpreters of the host, each with a GIL of its own. Experimental.

They share no objects: the settings go in as JSON, the application is imported in each, and what
has to be said goes over channels. An interpreter is never destroyed: threads that the application
left in it may be running, and CPython ends the process at that. So a context that is replaced
leaves its memory behind until the host ends, which it does by ``os._exit``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import sys
import threading
from collections import deque
from typing import Any

from ppserver import _native
from ppserver.app.loader import Application
from ppserver.config import Config, table
from ppserver.context.seats import Seat
from ppserver.freezing import FreezeReport
from ppserver.machine import topology
from ppserver.supervision import messages
from ppserver.supervision.channel import Channel
from ppserver.supervision.places.base import Order, Place, Premises

logger = logging.getLogger("ppserver.error")

_LEFT_BETWEEN_WARNINGS = 10


class Turn:
    """Whose turn it is to import: a byte in a pipe, which interpreters can pass on as well.

    CPython keeps records of extension modules per process, and so may extension modules. Only one
    context at a time makes its interpreter and loads the application.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.give()

    def take(self) -> None:
        """Wait for it."""
        os.read(self.reader, 1)

    def give(self) -> None:
        """Let the next one have it."""
        os.write(self.writer, b"\0")


class Context:
    """A context as the host knows it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.key = 0
        self.thread: threading.Thread | None = None
        self.door: socket.socket | None = None  # for errands; the guest's end
        self.channel, self.guests = Channel.pair()
        self.told = False
        self.failures = 0
        self.begun = threading.Event()


class Interpreters(Place):
    """Lends a thread to each context's interpreter."""

    @staticmethod
    def prepare(config: Config, application: Application | None) -> FreezeReport:
        """Freeze nothing: what is loaded here is not what the contexts use."""
        return FreezeReport.nothing("interpreters share no objects")

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._turn = Turn()
        self._contexts: dict[int, Context] = {}
        self._ended: deque[tuple[int, int]] = deque()
        self._left = 0
        self._warn_at = _LEFT_BETWEEN_WARNINGS
        self._failures = 0

    def start(self, order: Order) -> int:
        """Start a context's thread; the kernel's number of it."""
        if self._left >= self._warn_at:
            self._warn_at = self._left + _LEFT_BETWEEN_WARNINGS
            logger.warning(
                "%d contexts have ended here: the memory of an interpreter is given back only "
                "with its process; SIGHUP starts a new one",
                self._left,
            )
        context = Context(order)
        context.failures = self._failures
        if self._premises.errands is not None:
            context.door = self._premises.errands.open()
        context.thread = threading.Thread(
            target=self._live,
            args=(context,),
            name=f"ppserver context {order.slot + 1}",
            daemon=True,
        )
        try:
            context.thread.start()
        except RuntimeError:  # No room for a thread.
            context.channel.close()
            context.guests.close()
            if context.door is not None:
                context.door.close()
            raise
        context.begun.wait()
        self._contexts[context.key] = context
        return context.key

    def announced(self, key: int) -> None:
        """It runs already."""

    def ended(self) -> list[tuple[int, int]]:
        """Contexts that ended, with the exit codes they would have as processes."""
        found = []
        while self._ended:
            key, code = self._ended.popleft()
            context = self._contexts.pop(key)
            assert context.thread is not None
            context.thread.join()  # After this it cannot wake a pipe that is closed.
            context.channel.close()
            found.append((key, code))
            self._left += 1
        return found

    def tell(self, key: int, what: str) -> None:
        """Pass it on to the interpreter, which has log files of its own."""
        if (context := self._contexts.get(key)) is not None:
            context.told = context.told or what != "reopen"
            messages.send(context.channel, messages.Tell(key, what))

    def abandon(self) -> None:
        """End the process."""
        os._exit(1)

    def _live(self, context: Context) -> None:
        """A context's thread: wait for the turn, then be lent to the new interpreter."""
        context.key = threading.get_native_id()
        context.begun.set()
        topology.pin(self._premises.config, context.order.slot)
        self._turn.take()
        code, loaded = 0, False
        if context.told or context.failures != self._failures:
            # Too late to begin, or it would only say once more what is wrong.
            context.guests.close()
            if context.door is not None:
                context.door.close()
            for entry in context.order.listening:
                entry.socket.close()
        else:
            code, loaded = self._run(context)
            self._failures += not loaded
        self._ended.append((context.key, code))
        self._premises.pipe.wake()
        if not loaded:  # One that has loaded has given the turn back itself.
            self._turn.give()

    def _run(self, context: Context) -> tuple[int, bool]:
        """Run the guest; its exit code, and whether it came as far as to load."""
        order, premises = context.order, self._premises
        listening = [(e.socket.detach(), e.kind, e.tag) for e in order.listening]
        channel, supervisor = context.guests.socket.detach(), os.dup(premises.channel.fileno())
        door = -1 if context.door is None else context.door.detach()
        birth = messages.Birth(
            slot=order.slot,
            seat=order.seat,
            key=context.key,
            settings={name: getattr(premises.config, name) for name in table()},
            place=describe(premises.seats.seat(order.seat, local=True)),
            turn=self._turn.writer,
            listening=listening,
            channel=channel,
            supervisor=supervisor,
            errands=door,
        )
        program = program_of(dataclasses.asdict(birth))
        loaded, code = False, 3
        try:
            _native.run_interpreter(program)
        except RuntimeError as error:  # It never came so far as to take anything over.
            logger.error("Context %d could not start: %s", order.slot + 1, error)
            for fd in (channel, supervisor, door, *(fd for fd, _, _ in listening)):
                if fd >= 0:
                    os.close(fd)
        else:
            if (received := context.channel.receive()) is not None:
                finished = messages.read_finished(received)
                loaded, code = finished.loaded, finished.code
        return code, loaded


def describe(seat: Seat | None) -> messages.Place | None:
    """A seat in plain values."""
    if seat is None:
        return None
    return messages.Place(seat.board.fd, seat.index, seat.inbox, list(seat.doors))


def program_of(message: dict[str, Any]) -> str:
    """What an interpreter runs: it gets this one's paths, then it is a guest."""
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return "\n".join(
        (
            "import sys",
            f"sys.path[:] = {path!a}",
            f"sys.argv[:] = {sys.argv!a}",
            "from ppserver.supervision.places.guest import main",
            f"main({json.dumps(message)!a})",
        )
    )
