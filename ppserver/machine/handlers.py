"""Signal handlers that a child of the application does not inherit.

A child that the application forks (``multiprocessing``, ``os.fork``) would have the handlers of its
parent, and with them the parent's business: to stop a server, to remove its socket. So ours are
marked, and after a fork they are replaced by what the signal does by default. To ask for the
process number in the handler would not do: one that is written in Python does not end a sleep
that is about to begin.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_keeping = False


class Own:
    """A handler of the server's."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[[int, FrameType | None], Any]) -> None:
        self._run = run

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._run(number, frame)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the server forks a process of its own: there they stay until it has others."""
    global _keeping
    _keeping = True
    try:
        yield
    finally:
        _keeping = False


def _forget() -> None:
    """In a forked child."""
    if _keeping:
        return
    found = [n for n in signal.valid_signals() if isinstance(signal.getsignal(n), Own)]
    for number in found:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    if found:
        signal.set_wakeup_fd(-1)  # It would wake the parent.


os.register_at_fork(after_in_child=_forget)
