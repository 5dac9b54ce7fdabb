"""Clocks, threads, output, and what PyParallel told about itself and Linux has no counterpart for.

Whether a thread is a parallel one is known by the runtime only, which says so by
``mark_parallel``.
"""

from __future__ import annotations

import builtins
import io
import itertools
import logging
import os
import sys
import threading
import time
from typing import Any

from ppserver._native import runs_callbacks

__all__ = [
    "debug",
    "disable_heap_override",
    "enable_heap_override",
    "gmtime",
    "is_heap_override_active",
    "is_parallel_thread",
    "print",
    "rdtsc",
    "seh_eav_in_io_callback",
    "stderr",
    "stdout",
    "thread_seq_id",
    "was_parallel_thread",
]

logger = logging.getLogger("ppserver.error")


class _Thread(threading.local):
    """What is known about a thread; without a number until it asks for one."""

    number = 0
    is_parallel = False
    was_parallel = False


class _Process:
    """What is known about the process, and the lock of its output.

    A signal's handler may write in the midst of a write of its own thread: hence the RLock.
    """

    heap_override = False
    output = threading.RLock()


_thread = _Thread()
_numbers = itertools.count(1)
_numbering = threading.RLock()


def _renew_locks() -> None:
    """After a fork: those who held them are in the other process."""
    global _numbering
    _numbering = threading.RLock()
    _Process.output = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


# Clocks.


def rdtsc() -> int:
    """Nanoseconds of a monotonic clock, ``time.perf_counter_ns()``.

    PyParallel gave the processor's time stamp counter. That one's unit differs between machines;
    this one's does not. Only differences mean anything, here as there.
    """
    return time.perf_counter_ns()


def gmtime(timestamp: float | None = None) -> time.struct_time:
    """Nine numbers of UTC, as ``time.gmtime()`` gives them, of seconds since 1970 or of now.

    Raises OverflowError or OSError for a time that the C library does not know.
    """
    return time.gmtime(timestamp)


# Threads.


def thread_seq_id() -> int:
    """A small number for the calling thread: 1 for the first one of the process that asks, and so
    on. It stays the thread's own, also after its end."""
    if not _thread.number:
        with _numbering:
            _thread.number = next(_numbers)
    return _thread.number


def is_parallel_thread() -> bool:
    """Whether the calling thread is one of those that run a context's callbacks, or what was
    submitted."""
    return _thread.is_parallel or runs_callbacks()


def was_parallel_thread() -> bool:
    """Whether the calling thread is running a context's callbacks, or has done so before."""
    return _thread.was_parallel or runs_callbacks()


def mark_parallel(flag: bool) -> None:
    """For the runtime: the calling thread runs callbacks from now on, or no longer does."""
    _thread.is_parallel = flag
    _thread.was_parallel = _thread.was_parallel or flag


# What Windows and the fork of CPython had.


def enable_heap_override() -> None:
    """Set a flag of the process that ``is_heap_override_active()`` gives; nothing else.

    In PyParallel main-thread code could so allocate from the heap of a context. Here memory is
    allocated the same way everywhere.
    """
    _Process.heap_override = True


def disable_heap_override() -> None:
    """Clear the flag that ``enable_heap_override()`` sets."""
    _Process.heap_override = False


def is_heap_override_active() -> bool:
    """The flag that ``enable_heap_override()`` sets."""
    return _Process.heap_override


def seh_eav_in_io_callback() -> int:
    """0: how many access violations were caught as structured exceptions, which only Windows
    has. Here such an error ends the process, and its supervisor starts another one."""
    return 0


# Output.


def debug(text: Any) -> None:
    """Log ``text`` at level debug, where the server's own messages go: to ``ppserver.error``."""
    logger.debug("%s", text)


def stdout(text: Any) -> None:
    """Write ``text`` to standard output at once and in one piece, and nothing after it."""
    _write(sys.stdout, str(text))


def stderr(text: Any) -> None:
    """Write ``text`` to standard error at once and in one piece, and nothing after it."""
    _write(sys.stderr, str(text))


def print(  # noqa: A001 (the name is PyParallel's)
    *values: Any,
    sep: str | None = " ",
    end: str | None = "\n",
    file: Any = None,
    flush: bool = True,
) -> None:
    """The built-in ``print``, but what one call prints is written at once and in one piece, so
    that lines of different contexts do not mix. ``flush`` is taken and has no effect.

    The kernel keeps pieces of different processes apart in files and terminals, in pipes those up
    to 4096 bytes.
    """
    line = io.StringIO()
    builtins.print(*values, sep=sep, end=end, file=line)
    _write(sys.stdout if file is None else file, line.getvalue())


def _write(file: Any, text: str) -> None:
    """To ``file``, unless it is None as it is in a process without standard output."""
    if file is None:
        return
    with _Process.output:
        file.write(text)
        if hasattr(file, "flush"):
            file.flush()
