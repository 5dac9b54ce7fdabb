"""Tells of starts that hang, of an event loop that does not turn, and of WSGI threads all busy.

The loop is asked now and then, by ``call_soon_threadsafe``, from a thread of its own: nothing is
added to its turns, and it may be any loop. The thread is none of ``threading``'s, so that the
application does not meet it, and ends with its watchdog.
"""

from __future__ import annotations

import _thread
import asyncio
import collections
import contextlib
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from ppserver import _native
from ppserver.machine.gil import FREE_THREADED

logger = logging.getLogger("ppserver.error")

STUCK_SECONDS = 10.0
_FRAMES = 24  # Of a stack, the innermost.
_STOP_SECONDS = 2.0
_LOOK_SECONDS = 1.0
_MOMENT = 1.0

# Packages whose frames are left out at the outer end of a stack.
_OURS = frozenset({"asyncio", "ppserver", "threading", "uvloop"})


class Watchdog:
    """Watches the event loop of the thread that makes it; ``stop()`` ends it.

    A stall is logged once, with the stack of the loop's thread, when it has taken ``seconds``, and
    at its end. ``stuck`` is told of both, on the watchdog's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stuck: Callable[[bool], object],
        seconds: float | None = None,
    ) -> None:
        self._loop = loop
        self._stuck = stuck
        self._seconds = STUCK_SECONDS if seconds is None else seconds
        self._watched = threading.get_ident()
        self._answered = True
        self._stopping = _thread.allocate_lock()
        self._stopping.acquire()
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:  # No thread is to be had: it serves all the same.
            logger.warning("Nobody watches the event loop: %s", error)
            self._ended.release()

    def stop(self) -> None:
        """End the thread. Once only."""
        self._stopping.release()
        self._ended.acquire(timeout=_STOP_SECONDS)

    def _run(self) -> None:
        try:
            with contextlib.suppress(RuntimeError):  # The loop is closed.
                self._watch()
        finally:
            self._ended.release()

    def _watch(self) -> None:
        asked = looked = time.monotonic()
        told = False
        while not self._stopping.acquire(timeout=self._seconds / 2):
            now = time.monotonic()
            late, looked = now - looked - self._seconds / 2, now
            if late >= self._seconds:
                logger.warning(
                    "No Python code ran in this process for %.0f s: it was stopped, or a function "
                    "of an extension kept the GIL",
                    late,
                )
                asked = now  # The loop, too, can only go on from now.
            elif self._answered:
                if told:
                    told = False
                    self._stuck(False)
                    logger.warning("The event loop turns again")
                self._answered = False
                asked = now
                self._loop.call_soon_threadsafe(self._answer)
            elif not told and now - asked >= self._seconds:
                told = True
                self._stuck(True)
                logger.error(
                    "The event loop has not turned for %.0f s: a call blocks it, and all of its "
                    "requests wait. It is in:\n%s",
                    now - asked,
                    _stack(self._watched),
                )

    def _answer(self) -> None:
        self._answered = True


class Start:
    """Watches functions that the thread which makes this calls before a context serves.

    One that takes long is logged once, with its stack. After ``limit`` seconds (0 is never), and
    a moment in which an async function is cancelled, ``give_up`` is called on another thread.
    """

    def __init__(self, limit: float, give_up: Callable[[], object] | None) -> None:
        self._limit = limit
        self._give_up = give_up
        self._watched = threading.get_ident()
        self._what = ""
        self._coroutine: Any = None
        self._since = 0.0
        self._ended: _thread.LockType | None = None

    def calls(self, what: str, coroutine: Any) -> None:
        """A function is called now, or its coroutine is awaited."""
        if coroutine is None:
            self._since = time.monotonic()
        self._what, self._coroutine = what, coroutine
        if self._ended is None:
            self._ended = _thread.allocate_lock()
            self._ended.acquire()
            with contextlib.suppress(RuntimeError):  # No thread is to be had.
                _thread.start_new_thread(self._watch, (self._ended,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._coroutine = None
        if self._ended is not None:
            self._ended.release()

    def _watch(self, ended: _thread.LockType) -> None:
        until = time.monotonic() + self._limit + _MOMENT if self._limit else math.inf
        told = ""
        while not ended.acquire(timeout=min(_LOOK_SECONDS, max(0.0, until - time.monotonic()))):
            now, what = time.monotonic(), self._what
            if now >= until:
                self._end(what)
                return
            if now - self._since >= STUCK_SECONDS and what != told:
                told = what
                logger.warning(
                    "%s has not come back for %.0f s, and this context does not serve yet. It is "
                    "in:\n%s",
                    what,
                    now - self._since,
                    self._stack(),
                )

    def _end(self, what: str) -> None:
        seconds = self._limit
        logger.error("%s took longer than %g seconds. It is in:\n%s", what, seconds, self._stack())
        if self._give_up is not None:
            self._give_up()

    def _stack(self) -> str:
        lines, coroutine = [], self._coroutine
        while (frame := getattr(coroutine, "cr_frame", None)) is not None:
            lines += traceback.format_list(traceback.extract_stack(frame, 1))
            coroutine = coroutine.cr_await
        return "".join(lines).rstrip() or _stack(self._watched)


class BusyThreads:
    """Logs once that all threads are busy while requests wait, when that has lasted long."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._told = False

    def look(self, waiting_seconds: float) -> None:
        """The first of the requests that wait now began to wait so long ago; 0: none waits."""
        if waiting_seconds < STUCK_SECONDS:
            self._told = False
        elif not self._told:
            self._told = True
            logger.warning(
                "All %d threads have been busy for %.0f s, and requests wait: more of them "
                "(--threads), or less to wait for. %s",
                self._threads,
                waiting_seconds,
                _most_common_stack("ppserver-wsgi-"),
            )


def _stack(ident: int) -> str:
    frame = sys._current_frames().get(ident) if FREE_THREADED else _native.thread_frame(ident)
    if frame is None:
        return "  (no Python code)"
    frames = [(one, one.f_lineno) for one in _of_the_application(frame)[-_FRAMES:]]
    return "".join(traceback.StackSummary.extract(iter(frames)).format()).rstrip()


def _of_the_application(innermost: FrameType) -> list[FrameType]:
    """The stack, outermost frame first, from where the server called the application.

    Left out at the outer end: the program that started the server, the server's own files, the
    event loop's, and those that start a thread. Where nothing else is left, as when the loop
    itself waits, it is all frames. What the application calls stays, whosever file it is.
    """
    frames = [frame for frame, _ in traceback.walk_stack(innermost)][::-1]
    ours = [_is_ours(frame) for frame in frames]
    if True not in ours:
        return frames
    begin = ours.index(True)
    while begin < len(frames) and ours[begin]:
        begin += 1
    return frames[begin:] or frames


def _is_ours(frame: FrameType) -> bool:
    package, _, _ = str(frame.f_globals.get("__name__")).partition(".")
    return package in _OURS


def _most_common_stack(prefix: str) -> str:
    idents = [
        thread.ident
        for thread in threading.enumerate()
        if thread.ident is not None and thread.name.startswith(prefix)
    ]
    stacks = collections.Counter(_stack(ident) for ident in idents)
    if not stacks:
        return ""
    stack, count = stacks.most_common(1)[0]
    return f"{count} of them in:\n{stack}"
