"""Errands: what contexts have the host's main thread do, which is how they change its state.

A context in a thread of the host leaves a callable; one in a process or an interpreter of its own
sends bytes, which the application's ``perform`` turns into bytes again, over a socket pair. The
main thread does one errand at a time, in the order in which they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("ppserver.error")

BYTES_MAX = 1 << 30
_HEAD = struct.Struct("!Q?")  # bytes that follow; whether the sender waits for an answer
_PIECE_BYTES = 1 << 18
_REPLY_SECONDS = 10.0


class _Local:
    """An errand of the same process."""

    def __init__(self, run: Callable[[], Any], wait: bool) -> None:
        self._run = run
        self._done = threading.Event() if wait else None
        self._result: Any = None
        self._error: BaseException | None = None

    def do(self) -> None:
        try:
            self._result = self._run()
        except KeyboardInterrupt:  # Of the main thread, not of the function.
            self.refuse("the main thread was interrupted")
            raise
        except BaseException as error:
            self._error = error
            if self._done is None:
                logger.error("A function called in the main thread failed", exc_info=error)
        if self._done is not None:
            self._done.set()

    def refuse(self, why: str = "the main thread has ended") -> None:
        """It will never be done."""
        self._error = RuntimeError(why)
        if self._done is not None:
            self._done.set()

    def wait(self) -> Any:
        if self._done is None:
            return None
        self._done.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # It refers to this frame.
        return self._result


class QueueErrands:
    """To a main thread that looks into a queue when it is woken."""

    pickles = False

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: deque[_Local] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, errand: Callable[[], Any], *, wait: bool) -> Any:
        local = _Local(errand, wait)
        with self._lock:
            if self._closed:
                raise RuntimeError("the main thread has ended")
            self._waiting.append(local)
            self._wake()
        return local.wait()

    def do_all(self) -> None:
        """Do what is there now."""
        for _ in range(len(self._waiting)):
            try:
                local = self._waiting.popleft()
            except IndexError:  # Refused by who closes it, from another thread.
                break
            local.do()

    def close(self) -> None:
        """Refuse what is there and what comes."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft().refuse()


class LoopErrands(QueueErrands):
    """To a main thread that runs an asyncio loop, which does what is there when it is woken."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(self._tell_loop)
        self._loop = loop

    def _tell_loop(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.do_all)
        except RuntimeError:
            self._waiting.pop()
            raise RuntimeError("the main thread has ended") from None


class SocketErrands:
    """The end of a context that shares no objects. Its threads take turns: the main thread is one
    anyway."""

    pickles = True

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()

    def ask(self, errand: bytes, *, wait: bool) -> bytes | None:
        if len(errand) > BYTES_MAX:
            raise RuntimeError(f"more than {BYTES_MAX} bytes for the main thread")
        with self._lock:
            try:
                self._socket.sendall(_HEAD.pack(len(errand), wait))
                self._socket.sendall(errand)
                if not wait:
                    return None
                size, _ = _HEAD.unpack(self._receive(_HEAD.size))
                return self._receive(size)
            except (OSError, EOFError):
                raise RuntimeError("the main thread has ended") from None

    def _receive(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._socket.recv(min(count, _PIECE_BYTES))
            if not piece:
                raise EOFError
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._socket.close()


class _Peer:
    """Such a context as the host has it: what has come of its errands."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.buffer = bytearray()

    def take(self) -> tuple[bytes, bool] | None:
        """The next whole errand, and whether it is waited for. Raises ValueError if it is none."""
        if len(self.buffer) < _HEAD.size:
            return None
        size, wait = _HEAD.unpack_from(self.buffer)
        if size > BYTES_MAX:
            raise ValueError("an errand that is too long")
        end = _HEAD.size + size
        if len(self.buffer) < end:
            return None
        errand = bytes(self.buffer[_HEAD.size : end])
        del self.buffer[:end]
        return errand, wait

    def reply(self, result: bytes) -> None:
        self.socket.settimeout(_REPLY_SECONDS)  # Who waits reads; who was stopped holds us up.
        try:
            self.socket.sendall(_HEAD.pack(len(result), False))
            self.socket.sendall(result)
        finally:
            self.socket.setblocking(False)


class HostErrands:
    """The host's side. All methods but `local`'s ``ask`` are for its main thread.

    ``perform(errand: bytes) -> bytes`` does one of a context that shares no objects, and never
    raises.
    """

    def __init__(self, perform: Callable[[bytes], bytes], wake: Callable[[], None]) -> None:
        self.local = QueueErrands(wake)
        self._perform = perform
        self._peers: dict[int, _Peer] = {}
        self._poll: select.poll | None = None

    def use(self, poll: select.poll) -> None:
        """Have ``poll`` tell of errands; `serve` gets what it finds."""
        self._poll = poll

    def open(self) -> socket.socket:
        """A new context's end: the caller's."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._peers[ours.fileno()] = _Peer(ours)
        if self._poll is not None:
            self._poll.register(ours, select.POLLIN)
        return theirs

    def keep_only(self, sock: socket.socket) -> SocketErrands:
        """In a forked context: close the host's ends; the own one as what asks."""
        for peer in self._peers.values():
            peer.socket.close()
        self._peers.clear()
        return SocketErrands(sock)

    def serve(self, ready: set[int]) -> None:
        """Do what is there, and what has come from the descriptors in ``ready``."""
        self.local.do_all()
        for fd in ready & self._peers.keys():
            peer = self._peers[fd]
            try:
                self._read(peer)
            except (OSError, ValueError) as error:
                if not isinstance(error, ConnectionError):
                    logger.error("A context's errands failed", exc_info=error)
                self._drop(fd)

    def _read(self, peer: _Peer) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = peer.socket.recv(_PIECE_BYTES)
            if not piece:
                raise ConnectionResetError
            peer.buffer += piece
        while (found := peer.take()) is not None:
            errand, wait = found
            result = self._perform(errand)
            if wait:
                peer.reply(result)

    def _drop(self, fd: int) -> None:
        if self._poll is not None:
            self._poll.unregister(fd)
        self._peers.pop(fd).socket.close()

    def close(self) -> None:
        """The host ends: nobody is served any more."""
        self.local.close()
        for fd in list(self._peers):
            self._drop(fd)
