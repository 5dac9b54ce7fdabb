"""The host: the process that imports the application once and holds the contexts.

The supervisor forks it; it loads, decides what kind of contexts the application gets, freezes
what is there, and then starts contexts when the supervisor asks: forked processes, threads, or
interpreters (a ``Place`` each). It has one thread of its own. Everything is said in small JSON
messages over one ``SOCK_SEQPACKET`` pair, of which every context keeps the sending end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

from ppserver.app import disposal, hooks, opened
from ppserver.app.loader import Application, load
from ppserver.config import Config
from ppserver.context import eventloop, exits
from ppserver.context.listeners import Listening
from ppserver.context.main_thread import HostErrands
from ppserver.context.seats import Seats
from ppserver.errors import LoadError
from ppserver.freezing import FreezeReport
from ppserver.machine import directory, gil, handlers
from ppserver.observe import logs
from ppserver.shared import sealed
from ppserver.supervision import messages, plan, privileges
from ppserver.supervision.channel import Channel, Received, SignalPipe
from ppserver.supervision.family import call_host, die_with_parent
from ppserver.supervision.places.base import Order, Place, Premises

logger = logging.getLogger("ppserver.error")

_LEAVE_SECONDS = 2  # for a host that only found out that it cannot be shared
_DESCRIPTORS_MAX = 65536  # What a table is made for at once: half a megabyte of the kernel's.

SUPERVISED_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler for what the supervisor deals with."""


def _place_named(name: str) -> type[Place]:
    """The class of a place; only the one that is needed is loaded."""
    if name == "threads":
        from ppserver.supervision.places.threads import Threads

        return Threads
    if name == "interpreters":
        from ppserver.supervision.places.interpreters import Interpreters

        return Interpreters
    from ppserver.supervision.places.processes import Processes

    return Processes


class Host:
    """The host's side: load once, start contexts at the supervisor's word, report who ended."""

    def __init__(self, config: Config, channel: Channel, supervisor: int, seats: Seats) -> None:
        self._supervisor = supervisor
        self._config = config
        self._channel = channel
        self._seats = seats
        self._running: set[int] = set()

    def run(self) -> int:
        """The host's whole life; its exit code. Raises PPServerError if loading fails."""
        for number in (*SUPERVISED_IGNORED, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
            # Not SIG_IGN: programs that the application starts would inherit that.
            signal.signal(number, handlers.Own(_do_nothing))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Once here, not in every context: an import after the fork un-shares a megabyte.
        from ppserver import selector  # noqa: F401
        from ppserver.context import server  # noqa: F401

        privileges.drop(self._config)
        die_with_parent(self._supervisor)  # Changing the user switched it off.
        before = opened.snapshot()
        with gil.Watch() as watch:
            application = self._load()
        name, why = "processes", "each loads the application"
        if application is not None:
            name, why = plan.place_for(self._config, application, watch.culprit)
            if name == "processes" and not self._may_share(before, application):
                messages.send(self._channel, messages.Opened(application.interface))
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(_LEAVE_SECONDS)  # Whatever else the import left running.
                return 0
        interface = self._config.interface if application is None else application.interface
        kind = _place_named(name)
        self._config = eventloop.settle(self._config, interface)
        program = None if application is None else application.program
        if program is not None:
            program.before_contexts(self._seats.board, forked=name == "processes")
        report = kind.prepare(self._config, application)
        if application is None:
            report = FreezeReport.nothing("each context has its own")
        why = f"{why}; {report}"
        addresses = [
            [(str(address), address.scheme) for address in one]
            for one in (application.addresses if application is not None else ())
        ]
        messages.send(
            self._channel,
            messages.Loaded(name, interface, self._config.loop, why, addresses),
        )
        pipe = SignalPipe({signal.SIGCHLD: lambda: None})
        if name != "processes":
            widen_descriptor_table()
        errands = None
        try:
            if program is not None:
                errands = HostErrands(program.perform, pipe.wake)
            place = kind(
                Premises(
                    self._config,
                    application,
                    self._seats,
                    self._channel,
                    pipe,
                    errands,
                    self._supervisor,
                )
            )
            with sealed():
                code = self._loop(pipe, place, errands)
            if application is not None and name != "interpreters" and not hooks.stop(self._config):
                code = code or 1
            return code
        finally:
            if errands is not None:
                errands.close()
            pipe.close()

    def _load(self) -> Application | None:
        """Import the application, unless each context does so for itself."""
        if self._config.load == "each" and self._config.contexts != "interpreters":
            return None
        directory.come_back(self._config)
        application = load(self._config)
        if self._config.contexts != "interpreters":  # They cannot see what is loaded here.
            hooks.run(self._config)
        return application

    def _may_share(self, before: opened.Snapshot, application: Application) -> bool:
        """Whether contexts may be forked from here; what speaks against it is said in any case."""
        if found := opened.since(before):
            disposal.dispose()
            found = opened.since(before)
        if not found:
            return True
        where = "in on_context_start"
        if application.interface == "asgi":
            where = "in lifespan start-up or in on_context_start"
        each = (
            self._config.load == "auto"
            and isinstance(self._config.app, str)
            and application.interface != "parallel"
            and opened.must_not_be_shared(found)
        )
        locked = [one for one in found if one.kind == opened.LOCKED]
        if each and locked and plan.context_count(self._config) > 1:
            raise LoadError(
                f"importing the application opened {opened.listed(locked)} for writing, which one "
                "process at a time can do, and every context is a process",
                hint="open it read-only, or serve with --contexts threads",
            )
        if each:
            logger.warning(
                "Importing the application left what contexts must not share, so each context "
                "imports it for itself: %s. To load it once, open that %s, or say --load once.",
                opened.listed(found),
                where,
            )
        else:
            logger.warning(
                "Importing the application left what forked contexts share or lack, and should "
                "not: %s. Open that %s%s.",
                opened.listed(found),
                where,
                "" if self._config.load == "once" else ", or have it closed before contexts start",
            )
        return not each

    def _loop(self, pipe: SignalPipe, place: Place, errands: HostErrands | None) -> int:
        """Do what the supervisor says until it says "leave" and no context is left."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        if errands is not None:
            errands.use(poll)
        staying = True
        while staying or self._running:
            again = logs.reopen_at()
            timeout = max(0.0, again - time.monotonic()) * 1000 + 1 if again else None
            ready = {fd for fd, _ in poll.poll(timeout)}
            logs.reopen_again(time.monotonic())
            if pipe.fileno() in ready:
                pipe.clear()
            if errands is not None:
                errands.serve(ready)
            for key, code in place.ended():
                self._running.discard(key)
                messages.send(self._channel, messages.Ended(key, code))
            if self._channel.fileno() in ready:
                received = self._channel.receive()
                if received is not None:
                    staying = self._obey(place, received) and staying
                elif self._channel.ended:  # The supervisor is gone: nobody may outlive it.
                    place.abandon()
                    return 1
        return 0

    def _obey(self, place: Place, received: Received) -> bool:
        """Do what the supervisor says; False if that is to leave."""
        message = messages.read_by_host(received)
        if isinstance(message, messages.Start):
            self._start(place, message, received.fds)
        elif isinstance(message, messages.Tell):
            place.tell(message.key, message.what)
        elif isinstance(message, messages.Gone):
            self._running.discard(message.key)
        elif isinstance(message, messages.Reopen):
            logs.reopen()  # Contexts that are forked later inherit these files.
            for key in sorted(self._running):
                place.tell(key, "reopen")
        return not isinstance(message, messages.Leave)

    def _start(self, place: Place, message: messages.Start, fds: list[int]) -> None:
        listening = [
            Listening(socket.socket(fileno=fd), kind, tag)
            for fd, kind, tag in zip(fds, message.kinds, message.tags, strict=False)
        ]
        slot, seat = message.slot, message.seat
        try:
            if len(fds) != len(message.kinds):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            key = place.start(Order(slot, seat, listening))
        except (OSError, RuntimeError, MemoryError) as error:
            for entry in listening:
                entry.socket.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            messages.send(self._channel, messages.Unstarted(slot, seat, why))
            return
        self._running.add(key)
        messages.send(self._channel, messages.Started(slot, seat, key))
        place.announced(key)


def widen_descriptor_table() -> None:
    """Let the kernel make the process's table of descriptors as large as it may become.

    A table that threads share grows with a wait for all processors (``expand_fdtable`` in Linux),
    tens of milliseconds for whoever accepts just then. One that nobody shares yet grows at once.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = (soft if 0 < soft < _DESCRIPTORS_MAX else _DESCRIPTORS_MAX) - 1
    with contextlib.suppress(OSError):  # Taken, or no memory: it grows when it has to.
        reading, writing = os.pipe()
        try:
            os.close(fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, last))
        finally:
            os.close(reading)
            os.close(writing)


def start_host(
    config: Config, seats: Seats, close_in_child: Callable[[], None]
) -> tuple[int, Channel]:
    """Fork a host; its process number and our end of its channel. Main thread only.

    OSError if there is no room for one.
    """
    ours, theirs = Channel.pair()
    supervisor = os.getpid()
    try:
        with handlers.kept():
            pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        ours.close()
        close_in_child()

        def main() -> int:
            die_with_parent(supervisor)
            call_host(True)
            exits.forked()
            logs.configure(config)
            return Host(config, theirs, supervisor, seats).run()

        exits.leave(exits.exit_code_of(main))
    theirs.close()
    ours.unblock()
    return pid, ours
