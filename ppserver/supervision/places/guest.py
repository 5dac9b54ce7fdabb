"""The inside of a context that lives in a subinterpreter: what its program calls.

Everything comes as plain values: the settings, descriptors of listening sockets, a seat, and two
channels. What every context tells the supervisor goes there directly; the host says "stop",
"quit" and "reopen", and is told the exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import re
import socket
import sys
import threading

from ppserver._native import Board
from ppserver.app import hooks
from ppserver.app.loader import load
from ppserver.config import Config
from ppserver.context.exits import exit_code_of
from ppserver.context.listeners import Listening
from ppserver.context.main_thread import SocketErrands
from ppserver.context.seats import Seat
from ppserver.context.server import Server
from ppserver.context.wiring import Supervision, Wiring
from ppserver.errors import LoadError, PPServerError
from ppserver.machine import gil
from ppserver.observe import logs
from ppserver.shared import sealed
from ppserver.supervision import messages
from ppserver.supervision.channel import Channel
from ppserver.supervision.report import ChannelReport

_REFUSED = re.compile(r"module (?P<name>[\w.]+) does not support loading in subinterpreters")
_REFUSED_OTHERWISE = re.compile(r"\bsub-?interpreters?\b")


def main(text: str) -> None:
    """A context's whole life in its own interpreter; never raises."""
    guest = Guest(messages.Birth.of(json.loads(text)))
    code = exit_code_of(guest.run)
    take_leave()
    guest.end(code)


class Guest:
    """Loads the application in this interpreter and serves it."""

    def __init__(self, birth: messages.Birth) -> None:
        self._birth = birth
        self._config = Config(**birth.settings)
        self._loaded = False
        self._host = Channel(socket.socket(fileno=birth.channel))
        self._supervisor = Channel(socket.socket(fileno=birth.supervisor))
        self._main: SocketErrands | None = None
        if birth.errands >= 0:
            self._main = SocketErrands(socket.socket(fileno=birth.errands))
        self._listening = [
            Listening(socket.socket(fileno=fd), kind, tag) for fd, kind, tag in birth.listening
        ]
        self._report = ChannelReport(self._supervisor, birth.key, self._listening)

    def run(self) -> int:
        """Load, serve, stop; the exit code. Raises PPServerError if it cannot start."""
        try:
            logs.configure(self._config)
            with sealed():  # From the beginning: what is made here, no other context sees.
                return self._serve()
        except PPServerError as error:
            refused = refusal(error)
            raise error if refused is None else refused from None
        finally:
            self._report.close_sockets()

    def end(self, code: int) -> None:
        """Say that it is over; what this interpreter still runs is of no interest any more."""
        messages.send(self._host, messages.Finished(code, self._loaded))
        self._host.close()
        self._supervisor.close()
        if self._main is not None:
            self._main.close()

    def _serve(self) -> int:
        application = load(self._config)
        hooks.run(self._config)
        server = Server(
            self._config,
            _wiring=Wiring(
                application=application,
                listening=self._listening,
                seat=self._seat(),
                supervision=Supervision(
                    self._report,
                    multiprocess=True,  # No other context calls this object.
                    slot=self._birth.slot,
                    main=self._main,
                ),
            ),
        )
        self._loaded = True
        os.write(self._birth.turn, b"\0")  # The next interpreter may import.
        control = threading.Thread(
            target=self._obey, args=(server,), name="ppserver-control", daemon=True
        )
        control.start()
        try:
            return server.run()
        finally:
            with contextlib.suppress(OSError):
                self._host.socket.shutdown(socket.SHUT_RD)
            control.join()
            hooks.stop(self._config)

    def _seat(self) -> Seat | None:
        place = self._birth.place
        if place is None:
            return None
        return Seat(Board(fd=place.board), place.index, place.inbox, place.doors, local=True)

    def _obey(self, server: Server) -> None:
        """Do what the host says, until the context ends."""
        while (received := self._host.receive()) is not None:
            message = messages.read_by_host(received)
            what = message.what if isinstance(message, messages.Tell) else ""
            if what == "stop":
                server.should_exit = True
            elif what == "quit":
                server.exit_now()
            elif what == "reopen":
                logs.reopen()


def refusal(error: BaseException) -> LoadError | None:
    """What to say if ``error`` comes from a module that refuses subinterpreters.

    An application may wrap the error of an import in one of its own: what is behind it counts.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    vague: ImportError | None = None
    # Where the GIL is off, threads are what can replace interpreters.
    hint = f"--contexts {'threads' if gil.FREE_THREADED else 'processes'} can load it"
    while queue:
        one = queue.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ImportError):
            if match := _REFUSED.search(str(one)):
                # Without a traceback: packages that wrap the error give advice for another one.
                what = f"module {match['name']} does not support interpreters with their own GIL"
                return LoadError(what, hint=hint)
            if vague is None and _REFUSED_OTHERWISE.search(str(one)):
                vague = one
        queue += [one.__cause__, one.__context__]
    if vague is None:
        return None
    return LoadError(str(vague), hint=hint, trace=getattr(error, "trace", ""))


def take_leave() -> None:
    """What the end of an interpreter would do, as far as that does not take it down."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
        logging.shutdown()
        gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
