"""What an application should not do to its Task, and to those of others: see `hostile`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from hostile_deeds import Receive, Scope, Send, deed, hello
from support import record


class Yields:
    def __init__(self, what: Any) -> None:
        self.what = what

    def __await__(self) -> Iterator[Any]:
        yield self.what


@deed
async def yields_a_number(scope: Scope, receive: Receive, send: Send) -> None:
    await Yields(42)


@deed
async def yields_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    for _ in range(10):
        await Yields(None)
    await hello(scope, receive, send)


@deed
async def yields_a_future_by_hand(scope: Scope, receive: Receive, send: Send) -> None:
    await Yields(asyncio.get_running_loop().create_future())


@deed
async def yields_a_future_of_another_loop(scope: Scope, receive: Receive, send: Send) -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@deed
async def awaits_itself(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)
    await asyncio.current_task()  # type: ignore[misc]


@deed
async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


@deed
async def cancels_itself_and_goes_on(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    for _ in range(3):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
    await hello(scope, receive, send)


@deed
async def cancels_its_own_kind(scope: Scope, receive: Receive, send: Send) -> None:
    """Every task of another request, also those that wait for one."""
    for task in asyncio.all_tasks():
        one_of_us = re.search(r"ppserver[ _](request|worker)", repr(task))
        if one_of_us and task is not asyncio.current_task():
            task.cancel()
    await asyncio.sleep(0)
    await hello(scope, receive, send)


@deed
async def runs_a_loop_of_its_own(scope: Scope, receive: Receive, send: Send) -> None:
    coroutine = asyncio.sleep(0)
    try:
        asyncio.run(coroutine)
    except RuntimeError:
        record("no loop within the loop")
    finally:
        coroutine.close()
    await hello(scope, receive, send)
