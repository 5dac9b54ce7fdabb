"""Contexts as processes, forked from the host after it has loaded the application.

What is loaded once is shared by all until somebody writes to it, so everything is collected and
frozen before the first fork. The host stays single-threaded and forks from its main thread
(``PR_SET_PDEATHSIG`` follows the thread that forked).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading

from ppserver import freezing, topology
from ppserver.config import Config
from ppserver.contexts.errands import SocketErrands
from ppserver.contexts.host import Order, Premises, die_with_parent, exit_code_of, leave
from ppserver.freezing import FreezeReport
from ppserver.loader import Application

logger = logging.getLogger("ppserver.error")

_SIGNALS = {
    "stop": signal.SIGTERM,
    "quit": signal.SIGQUIT,
    "reopen": signal.SIGUSR1,
    "kill": signal.SIGKILL,
}
_BLOCKED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)


def prepare(config: Config, application: Application) -> FreezeReport | None:
    """Make what is loaded fit to be shared by forked processes."""
    if threading.active_count() > 1:
        logger.warning(
            "Importing the application started threads (%s): they do not exist in the "
            "contexts forked from here. Start them in lifespan startup.",
            ", ".join(t.name for t in threading.enumerate() if t is not threading.main_thread()),
        )
    close_database_handles()
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
            leave(exit_code_of(lambda: self._context(order, parent, main)))
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

        def say(kind: str) -> None:
            premises.channel.send(kind, slot=order.slot, seat=order.seat, key=os.getpid())

        def draining() -> None:
            for entry in order.listening:
                entry.socket.close()
            say("draining")

        server = Server(
            premises.config,
            application=premises.application,
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
        )
        try:
            return server.run()
        finally:
            for entry in order.listening:
                entry.socket.close()


def reseed() -> None:
    """New seeds for the global random generators: forked copies would all go on the same."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def close_database_handles() -> None:
    """Close the connections Django opened while it was imported: contexts must not share them.

    Others are for the application: ``os.register_at_fork`` is the hook.
    """
    database = sys.modules.get("django.db")
    if database is not None:
        database.connections.close_all()
