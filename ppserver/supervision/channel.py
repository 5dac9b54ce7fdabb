"""How a supervisor and the processes under it talk: small JSON messages, and readable signals."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from ppserver.config.addresses import SOCKETS_MAX
from ppserver.machine import handlers

_MESSAGE_BYTES_MAX = 65536
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group
_DESCRIPTOR_BYTES = struct.calcsize("i")
# The kernel has no room just now; the message can be sent later.
_TRANSIENT = frozenset(
    (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE)
)
_TRIES = 50
_PAUSE = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """A message as it came: its descriptors, and the process that sent it, as the kernel says."""

    data: bytes
    fds: list[int]
    sender: int

    @property
    def message(self) -> dict[str, Any]:
        """What it says. ValueError if it is no JSON object."""
        try:
            message = json.loads(self.data)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(message, dict):
            raise ValueError("not an object")
        return message


class Channel:
    """One end of the pair between supervisor and host: JSON messages, sometimes sockets.

    A blocking end waits until a message is sent. After ``unblock()`` it never waits: what the
    kernel does not take is kept in order, ``pending`` says so, and ``flush()`` tries again.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.ended = False  # nobody is there any more
        self._outbox: deque[tuple[bytes, list[socket.socket]]] = deque()

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (one, other):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self.socket.fileno()

    def unblock(self) -> None:
        """Never wait from here on."""
        self.socket.setblocking(False)

    @property
    def pending(self) -> bool:
        """Whether messages wait to be sent."""
        return bool(self._outbox)

    def send(self, kind: str, *, sockets: Sequence[socket.socket] = (), **fields: Any) -> bool:
        """Send a message; False if nobody is there any more.

        From any thread on a blocking end: contexts that are threads share one.
        """
        data = json.dumps({"kind": kind, **fields}).encode()
        if self.socket.getblocking():
            for _ in range(_TRIES):
                if self._put(data, sockets):
                    break
                time.sleep(_PAUSE)
        else:
            self._outbox.append((data, list(sockets)))
            self.flush()
        return not self.ended

    def flush(self) -> bool:
        """Send what waits, as far as the kernel takes it; False if nobody is there any more."""
        while self._outbox and not self.ended and self._put(*self._outbox[0]):
            self._outbox.popleft()
        return not self.ended

    def _put(self, data: bytes, sockets: Sequence[socket.socket]) -> bool:
        """Give it to the kernel; False if that has no room for it now."""
        try:
            if sockets:
                socket.send_fds(self.socket, [data], [sock.fileno() for sock in sockets])
            else:
                self.socket.send(data)
        except OSError as error:
            if error.errno in _TRANSIENT:
                return False
            if error.errno != errno.EBADF:  # Else a socket that was closed meanwhile.
                self.ended = True
        return True

    def drop_sockets(self) -> None:
        """Forget the messages that wait and would bring sockets."""
        kept = [(data, sockets) for data, sockets in self._outbox if not sockets]
        self._outbox = deque(kept)

    def receive(self, fds_max: int = SOCKETS_MAX) -> Received | None:
        """The next message; None if there is none now, or, once ``ended`` is set, no more.

        With ``fds_max`` 0 the kernel throws away descriptors that somebody sent.
        """
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        if fds_max:
            room += socket.CMSG_SPACE(fds_max * _DESCRIPTOR_BYTES)
        try:
            data, control, _, _ = self.socket.recvmsg(
                _MESSAGE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            self.ended = True
            return None
        except OSError as error:
            if error.errno == errno.EBADF:
                self.ended = True
            return None
        fds: list[int] = []
        sender = 0
        for level, kind, value in control:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                whole = len(value) - len(value) % _DESCRIPTOR_BYTES
                fds += struct.unpack(f"{whole // _DESCRIPTOR_BYTES}i", value[:whole])
            elif kind == socket.SCM_CREDENTIALS and len(value) == _CREDENTIALS.size:
                sender = _CREDENTIALS.unpack(value)[0]
        if not data:
            for fd in fds:
                os.close(fd)
            self.ended = self.ended or not sender  # An end has no sender, an empty message has.
            return None
        return Received(data, fds, sender)

    def close(self) -> None:
        self._outbox.clear()
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
        with contextlib.suppress(OSError):
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
    return handlers.Own(lambda _number, _frame: run())
