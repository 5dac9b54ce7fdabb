"""Standard error and standard output as the server's log writes to them: it never waits for long.

A pipe that nobody reads, or whose log collector hangs, blocks who writes to it: a context, or the
supervisor. So a pipe is opened a second time, not to block there (the flag of the one that is
inherited belongs to all who share it), and a line for which there is no room is counted. When there
is room again, a line says how many were lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import stat
import sys

_PATIENCE_MS = 100  # for a reader that is slow, until the first line is lost
_PIECE = 4096  # for which a pipe that polls as writable has room
_REST_MAX = 1 << 16


class Console:
    """What ``sys.stdout`` or ``sys.stderr`` is at the moment: tests replace them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pipe: Pipe | None = None
        self._is: tuple[int, int] | None = None

    def write(self, text: str) -> int:
        stream = getattr(sys, self._name)
        if stream is None:
            return len(text)
        fd = -1
        with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
            fd = stream.fileno()
        pipe = self._pipe_at(fd) if fd >= 0 else None
        if pipe is None:
            stream.write(text)
        else:
            pipe.write(text)
        return len(text)

    def flush(self) -> None:
        stream = getattr(sys, self._name)
        if stream is not None and self._pipe is None:
            stream.flush()

    def _pipe_at(self, fd: int) -> Pipe | None:
        """The pipe or socket that the descriptor leads to now."""
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._is:
            self._is = (status.st_dev, status.st_ino)
            kind = stat.S_IFMT(status.st_mode)
            self._pipe = Pipe(fd) if kind in (stat.S_IFIFO, stat.S_IFSOCK) else None
        return self._pipe


class Pipe:
    """A pipe or socket, written to without waiting."""

    def __init__(self, fd: int) -> None:
        self.lost = 0
        self._rest = b""  # of a line that is written in part
        self._socket: socket.socket | None = None
        self._own = -1
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
            return
        self._fd = fd
        # Another user's pipe cannot be opened: then only what surely fits is written.
        with contextlib.suppress(OSError):
            self._own = self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)

    def __del__(self) -> None:
        if self._own >= 0:
            os.close(self._own)
        if self._socket is not None:
            self._socket.close()

    def write(self, text: str) -> None:
        """Write it now, or count it as lost."""
        data = text.encode("utf-8", "backslashreplace")
        told = b""
        if self.lost:
            told = b"WARNING:  %d lines of the log were lost: nobody read them\n" % self.lost
        patience = 0 if self.lost or self._rest else _PATIENCE_MS
        if self._rest:
            self._rest = self._rest[self._put(self._rest, 0) :]
            if self._rest:
                self.lost += 1
                return
        whole = told + data
        written = self._put(whole, patience)
        if not written:
            self.lost += 1
            return
        self.lost = 0
        self._rest = whole[written:][:_REST_MAX]

    def _put(self, data: bytes, patience_ms: int) -> int:
        """Bytes that were taken."""
        done = 0
        with contextlib.suppress(OSError):  # Nobody is there to read it, ever.
            while done < len(data):
                try:
                    done += self._put_some(data[done:])
                    continue
                except BlockingIOError:
                    pass
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not patience_ms or not poll.poll(patience_ms):
                    break
                patience_ms = 0
        return done

    def _put_some(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._own >= 0:
            return os.write(self._own, data)
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(self._fd, data[:_PIECE])
