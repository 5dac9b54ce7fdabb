"""The list of checks, and what they share."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from support import ExpectedError

VERSION = sys.version_info
CHECKS: dict[str, list[Callable[[], Awaitable[None]]]] = {}
UNEXPECTED: list[str] = []

# What one step leaves for the next one.
kept: dict[str, Any] = {}

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


class NotHereError(Exception):
    """The check has no meaning on this interpreter or loop; the message says why."""


def check(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Register a step; ``name__2`` is the second step of ``name``."""
    name, _, _ = function.__name__.partition("__")
    CHECKS.setdefault(name, []).append(function)
    return function


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "no current task"
    return task


async def forever() -> None:
    await asyncio.Event().wait()


async def value_after_sleep(value: Any, delay: float = 0) -> Any:
    await asyncio.sleep(delay)
    return value


def chain_names(task: asyncio.Task[Any]) -> list[str]:
    """Names of the suspended code, outermost first, as a debugger walks them."""
    names = []
    item: Any = task.get_coro()
    while item is not None:
        code = getattr(item, "cr_code", None) or getattr(item, "gi_code", None)
        frame = getattr(item, "cr_frame", None)
        if code is None and frame is not None:
            code = frame.f_code
        if code is not None:
            names.append(code.co_name)
        item = getattr(item, "cr_await", None) or getattr(item, "gi_yieldfrom", None)
    return names


async def fail_soon() -> None:
    await asyncio.sleep(0)
    raise ExpectedError("child")
