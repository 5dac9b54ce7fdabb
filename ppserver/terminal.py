"""What a signal means, when it may mean two things."""

from __future__ import annotations

import os

# Terminals and process managers signal the process and its group: two signals that come this
# close together were meant as one.
SAME_SIGNAL_SECONDS = 0.2

_STARTED_ON = os.isatty(2)


def is_there() -> bool:
    """Whether somebody sits at it."""
    return any(os.isatty(fd) for fd in (0, 2))


def is_gone() -> bool:
    """Whether the terminal this process was started on, if any, was closed: SIGHUP then."""
    return _STARTED_ON and not os.isatty(2)
