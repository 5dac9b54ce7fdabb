"""What a signal means, when it may mean two things."""

from __future__ import annotations

import contextlib
import os
import sys

# Terminals and process managers signal the process and its group: two signals that come this
# close together were meant as one.
SAME_SIGNAL_SECONDS = 0.2

_STARTED_ON = os.isatty(2)


def open_standard_descriptors() -> None:
    """Where 0, 1 or 2 are closed, have them lead nowhere.

    Else the next thing that is opened gets that number, a socket or shared memory, and whoever
    writes to standard output or standard error destroys it. Python's streams are made, too, which
    it has left out: applications write to them.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != fd:
                    os.dup2(opened, fd)
                    os.close(opened)
                os.set_inheritable(fd, True)
                if getattr(sys, name) is None:
                    stream = open(  # noqa: SIM115 (as long as the process)
                        fd, "w" if fd else "r", errors="backslashreplace", closefd=False
                    )
                    setattr(sys, name, stream)


def is_there() -> bool:
    """Whether somebody sits at it."""
    return any(os.isatty(fd) for fd in (0, 2))


def is_gone() -> bool:
    """Whether the terminal this process was started on, if any, was closed: SIGHUP then."""
    return _STARTED_ON and not os.isatty(2)
