"""Functions of the application that run once, after import and before contexts.

They are the place to load data that all contexts read: :func:`on_start` in the application's
module, or the setting of that name.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ppserver.config import Config
from ppserver.errors import LoadError

Function = TypeVar("Function", bound=Callable[[], Any])

_registered: deque[Callable[[], Any]] = deque()


def on_start(function: Function) -> Function:
    """Have ``function`` called once, without arguments, before the contexts start.

    A decorator for use in the application's modules. Functions run after the application was
    imported, in the order of registration, in the process that all contexts come from; what they
    load is shared by all contexts (interpreters share nothing: each runs them). An exception ends
    the start.
    """
    if not callable(function):
        raise TypeError(f"on_start: {function!r} is not callable")
    _registered.append(function)
    return function


def resolve(config: Config) -> Callable[[], Any] | None:
    """The function that the setting ``on_start`` names, imported. LoadError if there is none."""
    if config.on_start is None:
        return None
    from ppserver.loader import find

    function = find(config.on_start, config.app_dir, setting="on_start")
    if not callable(function):
        raise LoadError(f"on_start: {config.on_start} is not a function")
    called: Callable[[], Any] = function
    return called


def run(config: Config) -> None:
    """Call what was registered, in order, then what the setting names; each function once.

    LoadError, with the application's traceback, if one fails. What ran is forgotten: a second
    server in this process finds its data loaded.
    """
    named = resolve(config)
    ran = []
    while _registered:
        function = _registered.popleft()
        ran.append(function)
        _call(function)
    if named is not None and named not in ran:
        _call(named)


def _call(function: Callable[[], Any]) -> None:
    from ppserver.loader import application_trace

    name = getattr(function, "__qualname__", repr(function))
    try:
        result = function()
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"on_start: {name} failed: {type(error).__name__}: {error}",
            trace=application_trace(error),
        ) from error
    if inspect.iscoroutine(result):
        result.close()
        raise LoadError(
            f"on_start: {name} is an async function",
            hint="make it an ordinary function: no event loop runs yet",
        )
