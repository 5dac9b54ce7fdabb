"""Functions of the application around its contexts, for every interface.

=====================  =====================================================  ==================
``on_start``           once, after import and before contexts                 the host
``on_context_start``   in each context, before it serves                      its loop's thread
``on_context_stop``    in each context, after its last request and lifespan   its loop's thread
``on_stop``            once, after the last context                           the host
=====================  =====================================================  ==================

Each is a decorator for the application's modules and a setting of the same name; what the setting
names comes last. Where each context imports the application for itself (``--load each``,
interpreters) all four run in each context, ``on_start`` and ``on_stop`` once in each.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ppserver.app.loader import find
from ppserver.app.tracebacks import application_trace
from ppserver.config import HOOKS, Config
from ppserver.errors import LoadError

Function = TypeVar("Function", bound=Callable[[], Any])

_STOP_SECONDS_LEAST = 5.0

_registered: deque[Callable[[], Any]] = deque()  # on_start; what ran is forgotten
_at_stop: deque[Callable[[], Any]] = deque()  # on_stop; likewise
_at_context_start: list[Callable[[], Any]] = []
_at_context_stop: list[Callable[[], Any]] = []

logger = logging.getLogger("ppserver.error")


def on_start(function: Function) -> Function:
    """Have ``function`` called without arguments after the application is imported.

    A decorator for use in the application's modules. Where the application is imported once for
    all contexts, functions run once, before the contexts start, in the process that they come
    from; what is loaded is shared. Where each context imports it (``--load each``, and
    interpreters) each context runs them. They run in the order of registration; an exception ends
    the start.
    """
    return _keep("on_start", function, _registered)


def on_context_start(function: Function) -> Function:
    """Have ``function`` called in each context before it serves.

    The place to open connections and to start threads: nothing that is made here is shared by
    forked contexts. It runs in the thread of the context's event loop, before lifespan start-up;
    with ASGI it may be an async function. An exception ends the start of that context, as do more
    than ``timeout_startup`` seconds.
    """
    return _keep("on_context_start", function, _at_context_start)


def on_context_stop(function: Function) -> Function:
    """Have ``function`` called in each context that ends, after its last request.

    Functions run in reverse order of registration, after lifespan shutdown; with ASGI they may
    be async. An exception is logged, and the others run all the same.
    """
    return _keep("on_context_stop", function, _at_context_stop)


def on_stop(function: Function) -> Function:
    """Have ``function`` called where ``on_start`` functions ran, after what they prepared is used.

    That is once, after the last context, or at the end of each context where each imports the
    application. In reverse order of registration. An exception is logged, and the others run all
    the same.
    """
    return _keep("on_stop", function, _at_stop)


def _keep(name: str, function: Function, where: list[Any] | deque[Any]) -> Function:
    if not callable(function):
        raise TypeError(f"{name}: {function!r} is not callable")
    where.append(function)
    return function


def resolve(config: Config, setting: str = "on_start") -> Callable[[], Any] | None:
    """The function that a setting names, imported; None if it names none. LoadError if there is
    no such function."""
    text = getattr(config, setting)
    if text is None:
        return None
    function = find(text, config.app_dir, setting=setting)
    if not callable(function):
        raise LoadError(f"{setting}: {text} is not a function")
    called: Callable[[], Any] = function
    return called


def run(config: Config) -> None:
    """Call what was registered by ``on_start``, in order, then what the setting names; each
    function once.

    LoadError, with the application's traceback, if one fails. What ran is forgotten: a second
    server in this process finds its data loaded.
    """
    check(config)  # A name that is wrong is told here, once, not by each context.
    named = resolve(config)
    ran = []
    while _registered:
        function = _registered.popleft()
        ran.append(function)
        _call("on_start", function)
    if named is not None and named not in ran:
        _call("on_start", named)


def check(config: Config) -> None:
    """LoadError if a setting names a function that is not there."""
    for setting in HOOKS:
        resolve(config, setting)


def stop(config: Config) -> bool:
    """Call what ``on_stop`` registered, latest first, and what the setting names; False if one
    failed. What ran is forgotten."""
    functions = list(_at_stop)
    _at_stop.clear()
    succeeded = True
    for function in reversed(_with_named(config, "on_stop", functions)):
        try:
            _call("on_stop", function)
        except LoadError as error:
            _log(error)
            succeeded = False
    return succeeded


async def start_context(
    config: Config, interface: str, calls: Callable[[str, Any], object] = lambda *_: None
) -> None:
    """Call the functions of ``on_context_start`` in the context that this is. LoadError if one
    fails, or if together they take longer than ``timeout_startup``.

    ``calls`` is told of each before it is called, by name, and again with its coroutine if it is
    an async function.
    """
    limit = config.timeout_startup
    until = time.monotonic() + limit
    for function in _with_named(config, "on_context_start", _at_context_start):
        name = _name_of(function)
        tell = functools.partial(calls, f"on_context_start: {name}")
        tell(None)
        trace = ""
        try:
            async with asyncio.timeout(until - time.monotonic() if limit else None):
                await _call_in_context("on_context_start", function, interface, tell)
            if not limit or time.monotonic() < until:
                continue
        except TimeoutError as error:
            trace = application_trace(error.__context__ or error)  # Where it was cancelled.
        raise LoadError(
            f"on_context_start: {name} took longer than {limit:g} seconds",
            hint="timeout_startup sets the time that these functions may take",
            trace=trace,
        )


async def stop_context(config: Config, interface: str) -> bool:
    """Call the functions of ``on_context_stop``, latest first; False if one failed."""
    succeeded = True
    timeout = max(config.timeout_graceful_shutdown, _STOP_SECONDS_LEAST)
    for function in reversed(_with_named(config, "on_context_stop", _at_context_stop)):
        try:
            async with asyncio.timeout(timeout):
                await _call_in_context("on_context_stop", function, interface)
        except TimeoutError:
            logger.error(
                "on_context_stop: %s took longer than %g seconds", _name_of(function), timeout
            )
            succeeded = False
        except LoadError as error:
            _log(error)
            succeeded = False
    return succeeded


def _with_named(
    config: Config, setting: str, registered: list[Callable[[], Any]]
) -> list[Callable[[], Any]]:
    """What was registered, then what the setting names, each function once."""
    named = resolve(config, setting)
    return registered if named is None or named in registered else [*registered, named]


def _call(setting: str, function: Callable[[], Any]) -> None:
    result = _result_of(setting, function)
    if inspect.iscoroutine(result):
        result.close()
        name = _name_of(function)
        raise LoadError(
            f"{setting}: {name} is an async function",
            hint="make it an ordinary function: no event loop runs yet",
        )


def _name_of(function: Callable[[], Any]) -> str:
    return str(getattr(function, "__qualname__", repr(function)))


async def _call_in_context(
    setting: str,
    function: Callable[[], Any],
    interface: str,
    awaits: Callable[[Any], object] = lambda _: None,
) -> None:
    result = _result_of(setting, function)
    if not inspect.isawaitable(result):
        return
    if interface != "asgi":
        if inspect.iscoroutine(result):
            result.close()
        name = _name_of(function)
        raise LoadError(
            f"{setting}: {name} is an async function",
            hint="make it an ordinary function: only ASGI applications have an event loop",
        )
    awaits(result)
    try:
        await result
    except (Exception, SystemExit) as error:
        raise _failure(setting, function, error) from error


def _result_of(setting: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise _failure(setting, function, error) from error


def _failure(setting: str, function: Callable[[], Any], error: BaseException) -> LoadError:
    name = _name_of(function)
    return LoadError(
        f"{setting}: {name} failed: {type(error).__name__}: {error}",
        trace=application_trace(error),
    )


def _log(error: LoadError) -> None:
    logger.error("%s\n%s", error, error.trace.rstrip())
