"""How a process of the server ends: its exit functions run, and it does end.

``bound()`` sets the latest moment: who is in the way then, a thread or a child process, is named in
the log and left behind. ``leave()`` is the end of a forked process: what the interpreter does when
it ends, in that order, without going back to the frames of the parent.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from ppserver.config import Config
from ppserver.context import measuring
from ppserver.errors import PPServerError, report

logger = logging.getLogger("ppserver.error")

LIFESPAN_LEAST = 5.0  # Seconds that a lifespan's shutdown gets in any case.
CANCELLED_WITHIN = 5.0  # Seconds that cancelled requests get to clean up.
_MARGIN = 5.0
_LEAST = 3.0  # Seconds that exit functions get in any case.
_LOOK = 0.2  # How often the moment is looked at: it may have been moved.
_REPORT = 1.0  # Seconds for the last line of the log.


class _End:
    """When this process ends at the latest; and how long it may wait for its threads."""

    def __init__(self) -> None:
        self.process = 0  # that the watch runs in
        self.at = 0.0
        self.code = 1
        self.grace_until = 0.0


_end = _End()


def patience(config: Config, *, hurry: bool = False) -> float:
    """Seconds that a context may take to end, with everything that it was promised."""
    graceful = 0.0 if hurry else config.timeout_graceful_shutdown
    delay = 0.0 if hurry else config.shutdown_delay
    return delay + graceful + CANCELLED_WITHIN + max(graceful, LIFESPAN_LEAST) + _MARGIN


def bound(seconds: float, code: int = 1) -> None:
    """Have this process end with ``code`` in so many seconds at the latest, whatever hangs.

    The last call counts. It may be made in a signal handler.
    """
    _end.at, _end.code = time.monotonic() + seconds, code
    if _end.process == os.getpid():
        return
    _end.process = os.getpid()
    try:
        _thread.start_new_thread(_watch, ())  # Its locks cannot be those of who was interrupted.
    except RuntimeError:  # No room for a thread. The kernel has a clock, too.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(seconds) + 1)


def unbound() -> None:
    """This process goes on after all."""
    _end.at = math.inf


def grant(seconds: float) -> None:
    """Requests are running still: they, and threads after them, have so long from now."""
    _end.grace_until = time.monotonic() + seconds


def bound_rest(code: int) -> None:
    """What is left after the server's own end may take the rest of what was granted."""
    bound(max(_LEAST, _end.grace_until - time.monotonic()), code)


def forked() -> None:
    """In a process that was forked off one which has loaded an application.

    Exit functions of that time are the other one's: they run there, once. What the standard library
    registers for every process stays.
    """
    atexit._clear()
    _end.grace_until = 0.0
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    atexit.register(logging.shutdown)
    pools = sys.modules.get("multiprocessing.util")
    if pools is not None:
        atexit.register(pools._exit_function)
        _pool_children().clear()  # They are the other one's, to be given work and ended by it.


def leave(code: int) -> NoReturn:
    """End a forked process: wait for its threads, run what ``atexit`` holds, and out."""
    with contextlib.suppress(BaseException):
        bound_rest(code)
        # Also ends what waits in idle executors; the exit functions count on it.
        threading._shutdown()  # type: ignore[attr-defined]
    measuring.save()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def exit_code_of(main: Callable[[], int]) -> int:
    """Run ``main``; its exit code, or that of the exception it ended with, which is reported."""
    try:
        return main()
    except PPServerError as error:
        report(error, sys.stderr)
        return error.exit_code
    except SystemExit as error:
        return exit_code_of_exit(error)
    except BaseException:
        where = f"Process [{os.getpid()}]"
        if threading.current_thread() is not threading.main_thread():
            where = f"Context's thread [{threading.get_native_id()}]"
        logger.exception("%s failed", where)
        return 1


def exit_code_of_exit(error: SystemExit) -> int:
    """The exit code that ``sys.exit(...)`` stands for; a text is printed, as Python does it."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(error.code, file=sys.stderr)
    return 1


def _watch() -> None:
    """In a thread of its own: wait for the moment, then end the process."""
    asked, told = _thread.allocate_lock(), _thread.allocate_lock()
    asked.acquire()
    told.acquire()
    with contextlib.suppress(RuntimeError):
        # Who hangs may hold a lock of logging. Begun now: from 3.12 on, an interpreter that ends
        # begins no thread.
        _thread.start_new_thread(_tell, (asked, told))
    while (left := _end.at - time.monotonic()) > 0:
        if left == math.inf:
            _end.process = 0
            if _end.at == math.inf:  # Nobody has counted on this thread meanwhile.
                asked.release()
                return
            _end.process = os.getpid()
        time.sleep(min(left, _LOOK))
    asked.release()
    told.acquire(timeout=_REPORT)
    os._exit(_end.code)


def _tell(asked: _thread.LockType, told: _thread.LockType) -> None:
    asked.acquire()
    if _end.at == math.inf:
        return
    with contextlib.suppress(BaseException):
        logger.error("Process [%d] did not end in time; left behind: %s", os.getpid(), remains())
    with contextlib.suppress(BaseException):
        for child in list(_pool_children()):
            child.kill()  # Nobody will give it work any more, or tell it to end.
    told.release()


def remains() -> str:
    """The threads and child processes that are still there, by name."""
    here = threading.get_ident()
    found = [
        f"thread {thread.name!r}"
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread() and thread.ident != here
    ]
    found += [f"process {child.name!r} [{child.pid}]" for child in list(_pool_children())]
    return ", ".join(found) or "the main thread"


def _pool_children() -> set[Any]:
    """Child processes of multiprocessing and of process pools."""
    module = sys.modules.get("multiprocessing.process")
    children: set[Any] = set() if module is None else module._children
    return children
