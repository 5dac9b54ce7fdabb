"""Contexts as processes, forked from the host after it has loaded the application.

What is loaded once is shared by all until somebody writes to it, so everything is collected and
frozen before the first fork. The host stays single-threaded, and forks from that thread.

A context must not end with its host, which can be killed like any process, but with the supervisor.
So the host forks a process that forks the context and ends: the kernel then makes the context a
child of the supervisor. It waits for that, and for the supervisor to know of it::

    host ──fork──► between ──fork──► context          the context waits
                   ends              ▲ adopted by the supervisor
    host: waits for its end, says "started", lets the context go on
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import random
import signal
import socket
import struct
import sys
from types import FrameType
from typing import NoReturn

from ppserver import freezing
from ppserver.app import hooks
from ppserver.app.loader import Application, load
from ppserver.config import Config
from ppserver.context import eventloop, exits
from ppserver.context.exits import exit_code_of
from ppserver.context.main_thread import SocketErrands
from ppserver.context.server import Server
from ppserver.context.wiring import Supervision, Wiring
from ppserver.errors import LoadError
from ppserver.freezing import FreezeReport
from ppserver.machine import directory, handlers, topology
from ppserver.observe import logs
from ppserver.supervision.family import adopt, call_host, die_with_parent
from ppserver.supervision.places.base import Order, Place, Premises
from ppserver.supervision.report import ChannelReport

logger = logging.getLogger("ppserver.error")

_BLOCKED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)
_REPORT = struct.Struct("ii")  # the context's process number, an error's number
_MADE_TOO_LATE = "contexts have started, so only this one would see it"


class Processes(Place):
    """Forks a process per context."""

    @staticmethod
    def prepare(config: Config, application: Application | None) -> FreezeReport:
        # Load once: what is here now is read by every context, and neither their collectors nor
        # their reference counts write to it, so its pages stay shared.
        return freezing.prepare(config, application)

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._gates: dict[int, socket.socket] = {}  # of contexts that were not announced yet
        adopt(False)  # If the application has switched it on: contexts would become ours.

    def start(self, order: Order) -> int:
        """Fork a context; its process number. It waits until it is announced."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        errands = self._premises.errands
        with contextlib.ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            door = None if errands is None else stack.enter_context(errands.open())
            # A context must not lose a signal that comes before its handlers are in place.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
            try:
                with handlers.kept():
                    between = os.fork()
                    if between == 0:
                        _fork_and_end(theirs)  # The context comes back.
            except OSError:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                raise
            if between == 0:
                try:
                    ours.close()
                    self._become_context(order, theirs, door)
                finally:
                    os._exit(1)  # Whatever happens: a second host must not come of it.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            with contextlib.suppress(ChildProcessError):  # The application has waited for it.
                os.waitpid(between, 0)
            pid = _reported(ours)
            self._gates[pid] = ours.dup()
        for entry in order.listening:
            entry.socket.close()
        return pid

    def announced(self, key: int) -> None:
        """Let it go on."""
        with self._gates.pop(key) as gate, contextlib.suppress(OSError):
            gate.send(b"\0")

    def ended(self) -> list[tuple[int, int]]:
        """None of them is our child."""
        return []

    def tell(self, key: int, what: str) -> None:
        """The supervisor sends signals itself."""

    def abandon(self) -> None:
        """The kernel ends them with the supervisor."""

    def _become_context(
        self, order: Order, gate: socket.socket, door: socket.socket | None
    ) -> NoReturn:
        """In the new process."""
        call_host(False)
        self._premises.pipe.close(restore=False)
        main = None
        if self._premises.errands is not None and door is not None:
            main = self._premises.errands.keep_only(door)
        with gate:
            if not gate.recv(1):
                raise ConnectionResetError("the host was ended before it could tell of us")
        exits.forked()
        exits.leave(exit_code_of(lambda: self._context(order, main)))

    def _context(self, order: Order, main: SocketErrands | None) -> int:
        """A context's whole life; its exit code."""
        premises = self._premises
        die_with_parent(premises.supervisor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        topology.pin(premises.config, order.slot)
        reseed()
        premises.seats.keep_only(order.seat)

        report = ChannelReport(premises.channel, os.getpid(), order.listening)
        application = premises.application
        if application is None:
            application = load_here(premises.config)
            loop = eventloop.settle(premises.config, application.interface).loop
            report.imported(application.interface, loop)
        server = Server(
            premises.config,
            _wiring=Wiring(
                application=application,
                listening=order.listening,
                seat=premises.seats.seat(order.seat, local=False),
                supervision=Supervision(
                    report,
                    multiprocess=True,
                    slot=order.slot,
                    main=main,
                ),
                owns_process=True,
            ),
        )
        stopped = True
        try:
            code = server.run()
        finally:
            report.close_sockets()
            if premises.application is None:
                stopped = hooks.stop(premises.config)
        return code if stopped else code or 1


def _fork_and_end(report: socket.socket) -> None:
    """In the process between: fork, report who or why not, and end. The forked one returns."""
    pid = number = 0
    try:
        pid = os.fork()
        if pid == 0:
            return
    except BaseException as error:
        number = getattr(error, "errno", None) or errno.ENOMEM
    try:
        report.send(_REPORT.pack(pid, number))
    finally:
        os._exit(0)


def _reported(report: socket.socket) -> int:
    """The process number of the context that the process between, which has ended, has forked.
    OSError if it has not."""
    try:
        pid, number = _REPORT.unpack(report.recv(_REPORT.size, socket.MSG_DONTWAIT))
    except (BlockingIOError, struct.error):
        raise RuntimeError("the process that was to fork it was killed") from None
    if number:
        raise OSError(number, os.strerror(number))
    return int(pid)


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
