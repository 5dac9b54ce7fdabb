"""The loader and its contexts, each a process.

The loader imports the application once, collects and freezes what is there, and then forks
contexts when the supervisor asks. It stays single-threaded itself, and forks from its main
thread (``PR_SET_PDEATHSIG`` follows the thread that forked). Everything is said in small JSON
messages over one ``SOCK_SEQPACKET`` pair, of which every context keeps the sending end.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import logging
import os
import random
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from ppserver import contexts, logs
from ppserver.config import Config
from ppserver.errors import PPServerError
from ppserver.loader import Application, load
from ppserver.sockets import Listening

logger = logging.getLogger("ppserver.error")

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES_MAX = 65536
_SOCKETS_MAX = 64

SUPERVISED_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class Channel:
    """One end of the pair between supervisor and loader: JSON messages, sometimes sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, kind: str, *, sockets: list[socket.socket] | None = None, **fields: Any) -> bool:
        """Send a message; False if nobody is there any more."""
        data = json.dumps({"kind": kind, **fields}).encode()
        try:
            if sockets:
                socket.send_fds(self.socket, [data], [sock.fileno() for sock in sockets])
            else:
                self.socket.send(data)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors; None if there is none, or no more."""
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, _MESSAGE_BYTES_MAX, _SOCKETS_MAX)
        except (ConnectionError, BlockingIOError):
            return None
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        for fd in fds:
            os.set_inheritable(fd, False)
        return message, fds

    def close(self) -> None:
        self.socket.close()


class SignalPipe:
    """Makes signals readable: a descriptor for ``poll`` beside the handlers. Main thread only."""

    def __init__(self, handlers: dict[signal.Signals, Callable[[], None]]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {
            number: signal.signal(number, _calling(run)) for number, run in handlers.items()
        }

    def fileno(self) -> int:
        return self._reader.fileno()

    def clear(self) -> None:
        """Forget the bytes that woke us; the handlers have run already."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def close(self, *, restore: bool = True) -> None:
        signal.set_wakeup_fd(self._before)
        if restore:
            for number, handler in self._handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _calling(run: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    return lambda _number, _frame: run()


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process ``number`` when its parent ends.

    ``parent`` is the parent's process number; it may have ended before we could ask.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def leave(code: int) -> NoReturn:
    """End a forked process: what ``atexit`` holds, then out, past the parent's frames."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def run_forked(main: Callable[[], int]) -> NoReturn:
    """Run ``main`` in a process just forked and end it with the exit code."""
    code = 1
    try:
        code = main()
    except PPServerError as error:
        from ppserver.cli import report

        report(error, sys.stderr)
        code = error.exit_code
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        logger.exception("Process [%d] failed", os.getpid())
    leave(code)


class Loader:
    """The loader's side: import once, fork at the supervisor's word, report who ended."""

    def __init__(self, config: Config, channel: Channel, supervisor: int) -> None:
        self._supervisor = supervisor
        self._config = config
        self._channel = channel
        self._children: dict[int, int] = {}
        self._application: Application | None = None

    def run(self) -> int:
        """The loader's whole life; its exit code. Raises PPServerError if loading fails."""
        for number in (*SUPERVISED_IGNORED, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Once here, not in every context: an import after the fork un-shares a megabyte.
        import ppserver.selector
        import ppserver.server  # noqa: F401

        contexts.drop_privileges(self._config)
        die_with_parent(self._supervisor)  # Changing the user switched it off.
        self._application = load(self._config)
        if threading.active_count() > 1:
            logger.warning(
                "Importing the application started threads (%s): they do not exist in the "
                "contexts forked from here. Start them in lifespan startup.",
                ", ".join(
                    t.name for t in threading.enumerate() if t is not threading.main_thread()
                ),
            )
        close_database_handles()
        # Load once: what is here now is read by every context and never looked at again by
        # their collectors, so its pages stay shared.
        gc.collect()
        gc.freeze()
        self._channel.send("loaded", interface=self._application.interface)
        pipe = SignalPipe({signal.SIGCHLD: lambda: None})
        try:
            return self._loop(pipe)
        finally:
            pipe.close()

    def _loop(self, pipe: SignalPipe) -> int:
        """Do what the supervisor says until it says "quit" and no context is left."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        running = True
        while running or self._children:
            ready = {fd for fd, _ in poll.poll()}
            if pipe.fileno() in ready:
                pipe.clear()
                self._reap()
            if self._channel.fileno() in ready:
                received = self._channel.receive()
                if received is None:  # The supervisor is gone: nobody may outlive it.
                    for pid in self._children:
                        os.kill(pid, signal.SIGKILL)
                    return 1
                message, fds = received
                if message["kind"] == "spawn":
                    self._spawn(message, fds, pipe)
                else:
                    running = False
        return 0

    def _reap(self) -> None:
        """Report children that ended. Only ours: the application may have some of its own."""
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                slot = self._children.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                self._channel.send("ended", slot=slot, pid=pid, code=code)

    def _spawn(self, message: dict[str, Any], fds: list[int], pipe: SignalPipe) -> None:
        """Fork a context that serves the sockets that came with the message."""
        slot, parent = message["slot"], os.getpid()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        # A context must not lose a signal that comes before its handlers are in place.
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)
        )
        pid = os.fork()
        if pid == 0:
            pipe.close(restore=False)
            run_forked(lambda: self._context(slot, parent, fds, message["shared"]))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._children[pid] = slot
        for fd in fds:
            os.close(fd)
        self._channel.send("started", slot=slot, pid=pid)

    def _context(self, slot: int, parent: int, fds: list[int], shared: list[bool]) -> int:
        """A context's whole life; its exit code."""
        from ppserver.server import Server, Supervision

        die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reseed()
        listening = [
            Listening(socket.socket(fileno=fd), shared=flag)
            for fd, flag in zip(fds, shared, strict=True)
        ]

        def say(kind: str) -> None:
            self._channel.send(kind, slot=slot, pid=os.getpid())

        def draining() -> None:
            for entry in listening:
                entry.socket.close()
            say("draining")

        server = Server(
            self._config,
            application=self._application,
            listening=listening,
            supervision=Supervision(
                ready=lambda: say("ready"), draining=draining, retire=lambda: say("retire")
            ),
        )
        try:
            return server.run()
        finally:
            for entry in listening:
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


def start_loader(config: Config, close_in_child: Callable[[], None]) -> tuple[int, Channel]:
    """Fork a loader; its process number and our end of its channel. Main thread only."""
    ours, theirs = Channel.pair()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        close_in_child()

        def main() -> int:
            die_with_parent(supervisor)
            atexit._clear()  # What the starting program registered is for it to run.
            logs.configure(config)
            return Loader(config, theirs, supervisor).run()

        run_forked(main)
    theirs.close()
    ours.socket.setblocking(False)
    return pid, ours
