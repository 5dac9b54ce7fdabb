"""A Task's coroutine in the hands of others than the Task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from support import ExpectedError

from battery.core import (
    check,
    this_task,
)


def refuses(drive: Callable[[], Any]) -> None:
    try:
        result = drive()
    except ValueError as exc:
        assert "already executing" in str(exc), exc
    else:
        raise AssertionError(f"the coroutine that runs was driven: {result!r}")


def refuses_all() -> None:
    coro = this_task().get_coro()
    assert coro is not None
    for _ in range(2):
        refuses(lambda: coro.send(None))  # type: ignore[union-attr]
        refuses(lambda: coro.throw(ExpectedError("by hand")))  # type: ignore[union-attr]
        refuses(coro.close)  # type: ignore[union-attr]


@check
async def running_coroutine_cannot_be_driven() -> None:
    refuses_all()


@check
async def running_coroutine_cannot_be_driven__2() -> None:
    refuses_all()
    await asyncio.sleep(0)
    refuses_all()
    await asyncio.sleep(0.001)
    refuses_all()


@check
async def driving_the_running_coroutine_harms_nobody() -> None:
    coro = this_task().get_coro()
    refuses(lambda: coro.send(None))  # type: ignore[union-attr]


@check
async def driving_the_running_coroutine_harms_nobody__2() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
