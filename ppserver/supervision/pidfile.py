"""The file with the server's process number.

A lock says whether its server still runs; a number alone could belong to anybody by now. It is a
lock of the process (``F_SETLK``), which children do not inherit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from ppserver.config import Config
from ppserver.errors import StartupError

_TEXT_MAX = 64


@contextlib.contextmanager
def held(config: Config) -> Iterator[int]:
    """Write ``config.pid`` and remove it at the end; gives the descriptor, -1 without such a file.

    StartupError if it cannot be written, or if a server that runs has written it. Children must
    close the descriptor: who is not trusted with the file must not write to it.
    """
    if config.pid is None:
        yield -1
        return
    text = f"{os.getpid()}\n".encode()
    path, fd = config.pid, -1
    try:
        path = os.path.abspath(path)
        while fd < 0:
            fd = _open(path)
        os.ftruncate(fd, 0)
        os.pwrite(fd, text, 0)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise StartupError(f"cannot write pid file {path}: {error.strerror}") from None
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            if _is_at(fd, path) and os.pread(fd, _TEXT_MAX, 0) == text:
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.close(fd)


def _open(path: str) -> int:
    """The file, locked; -1 if it was removed meanwhile."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(fd, path):
            os.close(fd)
            return -1
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            whose = os.pread(fd, _TEXT_MAX, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise StartupError(
                f"pid file {path} is that of a server which runs, process {whose}",
                hint="give each server a file of its own, or stop that one",
            ) from None
        # A file system without locks.
    return fd


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
