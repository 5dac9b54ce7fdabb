"""Functions that run in the main thread, from wherever they are called.

The main thread is that of the process in which the program was loaded. Only there can a callback
change what all contexts read: under threads they see it at once, under processes the contexts that
start later do.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from ppserver.app.programs import MainThread

__all__ = ["call_from_main_thread", "call_from_main_thread_and_wait"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("ppserver.error")


class _Known:
    """The functions that both sides know, by their number, and the way to the other side."""

    functions: list[Callable[..., Any]] = []  # noqa: RUF012
    count: int | None = None  # so many were there when contexts started
    # Of the contexts that run here; none: an ordinary call.
    ways: list[MainThread] = []  # noqa: RUF012


def call_from_main_thread(function: Callable[P, T]) -> Callable[P, T | None]:
    """Decorator: a call from a context has the main thread call the function, and returns None at
    once. What it raises is logged. A call from the main thread is an ordinary one.

    Under processes and interpreters it must be decorated before the contexts start, and arguments
    are pickled: RuntimeError, or what pickle raises, otherwise. RuntimeError, too, if the server
    has ended.
    """
    return _decorated(function, wait=False)


def call_from_main_thread_and_wait(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: as `call_from_main_thread`, but the caller waits for what the function returns or
    raises, which under processes is pickled, too."""
    return _decorated(function, wait=True)


def _decorated(function: Callable[P, T], *, wait: bool) -> Callable[P, Any]:
    if not callable(function):
        raise TypeError(f"expected a function, not {type(function).__name__}")
    number = len(_Known.functions)
    _Known.functions.append(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        ways = _Known.ways
        way = ways[-1] if ways else None
        if way is None:
            return function(*args, **kwargs)
        if not way.pickles:
            if threading.current_thread() is threading.main_thread():
                return function(*args, **kwargs)
            return way.ask(lambda: function(*args, **kwargs), wait=wait)
        return _ask_parent(way, number, function, args, kwargs, wait)

    return call


def _ask_parent(
    way: MainThread,
    number: int,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    wait: bool,
) -> Any:
    """From a context that shares no objects with the host."""
    if _Known.count is not None and number >= _Known.count:
        name = getattr(function, "__qualname__", repr(function))
        raise RuntimeError(
            f"{name} is not known to the main thread's process: functions for it must be decorated "
            "before the contexts start, when the program is loaded"
        )
    answer = way.ask(pickle.dumps((number, args, kwargs, wait)), wait=wait)
    if not wait:
        return None
    failed, result = pickle.loads(answer)
    if failed:
        raise result
    return result


def perform(errand: bytes) -> bytes:
    """For the main thread's process: carry out what a forked context has sent."""
    try:
        number, args, kwargs, wait = pickle.loads(errand)
        result = _Known.functions[number](*args, **kwargs)
        return pickle.dumps((False, result)) if wait else b""
    except BaseException as error:  # Also sys.exit(): the host must not end by it.
        failure = error
    with contextlib.suppress(Exception):  # What cannot be pickled is logged.
        answer = pickle.dumps((True, failure))
        pickle.loads(answer)
        if wait and isinstance(failure, Exception):
            return answer
    logger.error("A function called in the main thread failed", exc_info=failure)
    text = "".join(traceback.format_exception_only(failure)).strip()
    return pickle.dumps((True, RuntimeError(f"in the main thread: {text}")))


def starts(way: MainThread) -> None:
    """For the runtime: a context begins, and this is its way."""
    _Known.ways.append(way)
    if way.pickles:
        _Known.count = len(_Known.functions)


def ends(way: MainThread) -> None:
    """For the runtime: that context does not run any more."""
    with contextlib.suppress(ValueError):  # It did not come so far.
        _Known.ways.remove(way)
