"""Contexts as processes, forked from the host after it has loaded the application.

What is loaded once is shared by all until somebody writes to it, so everything is collected and
frozen before the first fork. The host stays single-threaded and forks from its main thread
(``PR_SET_PDEATHSIG`` follows the thread that forked).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import signal
import sys
from types import FrameType

from ppserver import directory, exits, freezing, handlers, hooks, logs, topology
from ppserver.config import Config
from ppserver.contexts.errands import SocketErrands
from ppserver.contexts.host import Order, Premises, die_with_parent, exit_code_of
from ppserver.errors import LoadError
from ppserver.freezing import FreezeReport
from ppserver.loader import Application, load

logger = logging.getLogger("ppserver.error")

_SIGNALS = {
    "stop": signal.SIGTERM,
    "quit": signal.SIGQUIT,
    "reopen": signal.SIGUSR1,
    "kill": signal.SIGKILL,
}
_BLOCKED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)
_MADE_TOO_LATE = "contexts have started, so only this one would see it"


def prepare(config: Config, application: Application | None) -> FreezeReport:
    """Make what is loaded fit to be shared by forked processes."""
    # Load once: what is here now is read by every context, and neither their collectors nor their
    # reference counts write to it, so its pages stay shared.
    return freezing.prepare(config, application)


def open_place(premises: Premises) -> Processes:
    """The place for contexts as processes."""
    return Processes(premises)


class Processes:
    """Forks a process per context."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._pids: list[int] = []

    def start(self, order: Order) -> int:
        """Fork a context; its process number."""
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        errands = self._premises.errands
        door = None if errands is None else errands.open()
        # A context must not lose a signal that comes before its handlers are in place.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            with handlers.kept():
                pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if door is not None:
                door.close()  # Whereupon the host's end is dropped, too.
            raise
        if pid == 0:
            self._premises.pipe.close(restore=False)
            main = None
            if errands is not None and door is not None:
                main = errands.keep_only(door)
            exits.forked()
            exits.leave(exit_code_of(lambda: self._context(order, parent, main)))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._pids.append(pid)
        if door is not None:
            door.close()
        for entry in order.listening:
            entry.socket.close()
        return pid

    def ended(self) -> list[tuple[int, int]]:
        """Children that ended. Only ours: the application may have some of its own."""
        found = []
        for pid in list(self._pids):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # The application has waited for it.
                ended, status = pid, 0xFF00
            if ended:
                self._pids.remove(pid)
                found.append((pid, os.waitstatus_to_exitcode(status)))
        return found

    def tell(self, key: int, what: str) -> None:
        """Send the signal that stands for ``what``."""
        if key in self._pids:
            with contextlib.suppress(OSError):  # It may have become another user.
                os.kill(key, _SIGNALS[what])

    def abandon(self) -> None:
        """Kill every context."""
        for pid in self._pids:
            self.tell(pid, "kill")

    def _context(self, order: Order, parent: int, main: SocketErrands | None) -> int:
        """A context's whole life; its exit code."""
        from ppserver.server import Server, Supervision

        die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        premises = self._premises
        topology.pin(premises.config, order.slot)
        reseed()
        premises.seats.keep_only(order.seat)
        application = premises.application or load_here(premises.config)

        def say(kind: str) -> None:
            premises.channel.send(kind, slot=order.slot, seat=order.seat, key=os.getpid())

        def draining() -> None:
            for entry in order.listening:
                entry.socket.close()
            say("draining")

        server = Server(
            premises.config,
            application=application,
            listening=order.listening,
            seat=premises.seats.seat(order.seat, local=False),
            supervision=Supervision(
                ready=lambda: say("ready"),
                draining=draining,
                retire=lambda: say("retire"),
                stop=lambda: say("stop"),
                multiprocess=True,
                slot=order.slot,
                main=main,
            ),
            owns_process=True,
        )
        stopped = True
        try:
            code = server.run()
        finally:
            for entry in order.listening:
                entry.socket.close()
            if premises.application is None:
                stopped = hooks.stop(premises.config)
        return code if stopped else code or 1


def load_here(config: Config) -> Application:
    """What the host does where contexts share what it loads. Raises PPServerError."""
    for number in _BLOCKED:
        run = _reopen if number == signal.SIGUSR1 else _leave_early
        signal.signal(number, handlers.Own(run))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
    try:
        directory.come_back(config)
        application = load(config)
        hooks.run(config)
    except LoadError as error:
        if _MADE_TOO_LATE in str(error):
            raise LoadError(
                "each context imports the application for itself, so it cannot make numbers that "
                "all contexts change (ppserver.shared)",
                hint="open connections in on_context_start; the application is then loaded once",
                trace=error.trace,
            ) from None
        raise
    gc.collect()
    gc.freeze()
    return application


def _leave_early(number: int, frame: FrameType | None) -> None:
    """Told to end before it serves."""
    exits.leave(0)


def _reopen(number: int, frame: FrameType | None) -> None:
    logs.reopen()


def reseed() -> None:
    """New seeds for the global random generators: forked copies would all go on the same."""
    random.seed()
    numpy_seed = getattr(sys.modules.get("numpy.random"), "seed", None)
    if numpy_seed is not None:
        with contextlib.suppress(Exception):  # It is still being imported, or is somebody's own.
            numpy_seed()
