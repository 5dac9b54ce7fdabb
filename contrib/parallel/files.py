"""Files as PyParallel opens them: without a buffer in Python, with a hint how they will be used."""

from __future__ import annotations

import builtins
import contextlib
import enum
import errno
import io
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, StrOrBytesPath

__all__ = ["CachingBehavior", "close", "open", "read", "readfile", "write", "writefile"]

_PIECE_BYTES = 1 << 20


class CachingBehavior(enum.IntEnum):
    """How a file will be used, which tells the kernel how to cache it.

    ``Default`` and ``Buffered`` are the kernel's own way. ``RandomAccess`` reads nothing ahead,
    ``SequentialScan`` more than usual. With ``WriteThrough`` (``O_DSYNC``) what was written is on
    the disk when ``write`` returns. What is read from a ``Temporary`` file need not stay cached.
    """

    Default = 0
    Buffered = 1
    RandomAccess = 2
    SequentialScan = 3
    WriteThrough = 4
    Temporary = 5


_ADVICE = {
    CachingBehavior.RandomAccess: os.POSIX_FADV_RANDOM,
    CachingBehavior.SequentialScan: os.POSIX_FADV_SEQUENTIAL,
    CachingBehavior.Temporary: os.POSIX_FADV_NOREUSE,
}


def open(  # noqa: A001 (the name is PyParallel's)
    path: StrOrBytesPath,
    mode: str = "rb",
    caching_behavior: CachingBehavior | int = CachingBehavior.Default,
    *,
    permissions: int = 0o666,
) -> io.FileIO:
    """Open a file for bytes, unbuffered, closed when another program is executed.

    ``mode`` is that of the built-in ``open`` without ``"t"``; the ``"b"`` may be left out.
    ``permissions`` are those of a file that is created, less the umask. Raises OSError, and
    ValueError if the mode or the behaviour is none.
    """
    behavior = CachingBehavior(caching_behavior)

    def opener(name: str, flags: int) -> int:
        flags |= os.O_CLOEXEC
        if behavior is CachingBehavior.WriteThrough:
            flags |= os.O_DSYNC
        return os.open(name, flags, permissions)

    file = io.FileIO(os.fspath(path), mode, opener=opener)
    try:
        os.posix_fadvise(file.fileno(), 0, 0, _ADVICE.get(behavior, os.POSIX_FADV_NORMAL))
    except OSError:
        pass  # A pipe or a device; it was only advice.
    return file


def read(file: Any, nbytes: int = -1, offset: int | None = None) -> bytes:
    """``nbytes`` of what ``open`` returned, less at its end; all that is left if negative.

    From ``offset``, which leaves the file's position alone, or from the position. Raises OSError,
    and ValueError if the offset is negative.
    """
    position = _offset(offset)
    pieces: list[bytes] = []
    count = 0
    while nbytes < 0 or count < nbytes:
        wanted = _PIECE_BYTES if nbytes < 0 else min(nbytes - count, _PIECE_BYTES)
        if position is None:
            piece = file.read(wanted)
        else:
            piece = os.pread(file.fileno(), wanted, position + count)
        if piece is None:
            raise _would_block()
        if not piece:
            break
        pieces.append(piece)
        count += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write(file: Any, data: ReadableBuffer, offset: int | None = None) -> int:
    """Write all of ``data`` to what ``open`` returned; how many bytes that was.

    To ``offset``, which leaves the file's position alone, or to the position; what was opened for
    appending is appended to in any case. Raises OSError, then a part may have been written, and
    ValueError if the offset is negative.
    """
    position = _offset(offset)
    with memoryview(data) as given, given.cast("B") as view:
        count = 0
        while count < len(view):
            with view[count:] as rest:
                if position is None:
                    written = file.write(rest)
                else:
                    written = os.pwrite(file.fileno(), rest, position + count)
            if not written:
                raise _would_block()
            count += written
        return count


def close(file: Any) -> None:
    """Close what ``open`` returned. Again does no harm."""
    file.close()


def readfile(path: StrOrBytesPath) -> bytes:
    """The bytes of a whole file. Raises OSError."""
    with builtins.open(path, "rb") as file:
        return file.read()


def writefile(path: StrOrBytesPath, data: ReadableBuffer) -> int:
    """Make ``data`` the whole of a file, which is there afterwards with all of it or, if this
    fails or the machine does, as it was before; how many bytes that was.

    A file that is replaced keeps its permissions, and what holds it open sees the old one. A
    symbolic link is followed. Raises OSError, and ValueError for what is no regular file.
    """
    target = os.path.realpath(os.fsdecode(path))
    try:
        old = os.stat(target).st_mode
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old):
        raise ValueError(f"{target}: not a regular file")
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
    with open(temporary, "xb") as file:
        try:
            count = write(file, data)
            if old is not None:
                os.fchmod(file.fileno(), old & 0o777)
            os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    # The name is on the disk when the folder is.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return count


def _offset(offset: int | None) -> int | None:
    if offset is not None and offset < 0:
        raise ValueError(f"offset: expected 0 or more, got {offset}")
    return offset


def _would_block() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
