"""Which process is whose child, as the kernel sees it.

The supervisor is the parent of its hosts, and of the contexts that hosts fork: it adopts them
(``PR_SET_CHILD_SUBREAPER``), see :mod:`~ppserver.supervision.places.processes`. So a context does
not end with its host, ends with the supervisor (``PR_SET_PDEATHSIG``), and has a process number
that nobody else can have before the supervisor has waited for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Container
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_COMM = Path("/proc/self/comm")
_HOSTS_NAME = "ppserver-host"

_name_before = ""


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process ``number`` when its parent ends.

    ``parent`` is the parent's process number; it may have ended before we could ask. The kernel
    watches the thread that forked, or adopted: a supervisor's main thread.
    """
    _prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os._exit(1)


def adopt(on: bool) -> bool:
    """Whether orphans among this process's descendants become its children; what was before."""
    before = ctypes.c_int(0)
    address = ctypes.addressof(before)
    if ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.c_ulong(address), 0, 0, 0) != 0:
        before.value = 0
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))
    return bool(before.value)


def call_host(on: bool) -> None:
    """Give this process the name of hosts, as ``ps -e`` and ``top`` show it, or that before."""
    global _name_before
    with contextlib.suppress(OSError):
        if on:
            _name_before = _COMM.read_text().rstrip("\n")
        if on or _name_before:
            _COMM.write_text(_HOSTS_NAME if on else _name_before)


def children() -> set[int]:
    """This process's children, those too that have ended and were not waited for."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # Without that part of /proc: none.
        for task in Path("/proc/self/task").iterdir():
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def is_child(pid: int) -> bool:
    """Whether ``pid`` is a child of this process that was not waited for yet."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):  # EINVAL: no number of a process.
        return False
    return True


def exit_code_of_child(pid: int) -> int | None:
    """The exit code of a child that has ended, as of :mod:`subprocess`; None if it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # Somebody else in this process has waited for it.
        return 255
    return os.waitstatus_to_exitcode(status) if ended else None


def send(pid: int, number: int) -> None:
    """Send a signal to a child that was not waited for yet. That it cannot be sent is no error."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def reap_orphans(but: Container[int]) -> None:
    """Take leave of adopted children that have ended; not of those in ``but``, whose exit status
    somebody else wants."""
    while (pid := _ended()) and pid not in but:
        _wait(pid)
    if pid:  # It is always the first; perhaps others are behind it.
        for other in children():
            if other not in but:
                _wait(other)


def _ended() -> int:
    """A child that has ended, still there; 0 if there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return 0 if ended is None else ended.si_pid


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
