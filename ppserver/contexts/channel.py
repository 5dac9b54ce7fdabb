"""How a supervisor and the processes under it talk: small JSON messages, and readable signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from ppserver.sockets import SOCKETS_MAX

_MESSAGE_BYTES_MAX = 65536


class Channel:
    """One end of the pair between supervisor and host: JSON messages, sometimes sockets."""

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
            data, fds, _, _ = socket.recv_fds(self.socket, _MESSAGE_BYTES_MAX, SOCKETS_MAX)
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

    def wake(self) -> None:
        """Make it readable, from any thread."""
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"\0")

    def close(self, *, restore: bool = True) -> None:
        signal.set_wakeup_fd(self._before)
        if restore:
            for number, handler in self._handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _calling(run: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    return lambda _number, _frame: run()
