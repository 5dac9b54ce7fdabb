"""What an application should not do to its Task, and to those of others: see `hostile`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from hostile_deeds import Receive, Scope, Send, deed, hello
from support import ExpectedError, record


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


class Drives:
    """Like a future, except that whoever looks at it or cancels it starts what it was given."""

    def __init__(self, looked: Callable[[], Any], cancelled: Callable[[], Any]) -> None:
        self.looked, self.cancelled = looked, cancelled
        self.loop = asyncio.get_running_loop()

    @property
    def _asyncio_future_blocking(self) -> bool:
        with contextlib.suppress(Exception):
            self.looked()
        return True

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None:
        with contextlib.suppress(Exception):
            self.looked()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], Any], *, context: Any = None) -> None:
        self.loop.call_soon(callback, self, context=context)

    def cancel(self, msg: Any = None) -> bool:
        self.cancelled()
        return True

    def result(self) -> None:
        return None

    def __await__(self) -> Iterator[Any]:
        yield self


def own_coroutine() -> Any:
    task = asyncio.current_task()
    assert task is not None
    return task.get_coro()


@deed
async def drives_its_own_coroutine(scope: Scope, receive: Receive, send: Send) -> None:
    for drive in ("send", "throw", "send"):
        try:
            getattr(own_coroutine(), drive)(None)
        except (ValueError, TypeError):
            continue
        raise ExpectedError("the coroutine took it")
    await hello(scope, receive, send)


@deed
async def drives_its_own_coroutine_and_waits(scope: Scope, receive: Receive, send: Send) -> None:
    with contextlib.suppress(ValueError):
        own_coroutine().send(None)
    await asyncio.sleep(0.001)
    await hello(scope, receive, send)


@deed
def is_driven_before_it_runs(scope: Scope, receive: Receive, send: Send) -> Any:
    """The application is a function that gives the coroutine back."""
    if asyncio.current_task() is not None:
        with contextlib.suppress(ValueError):
            own_coroutine().send(None)
        with contextlib.suppress(ValueError):
            own_coroutine().close()
    return hello(scope, receive, send)


@deed
async def is_driven_while_looked_at(scope: Scope, receive: Receive, send: Send) -> None:
    coro = own_coroutine()
    await Drives(lambda: coro.send(None), lambda: None)
    await hello(scope, receive, send)


@deed
async def is_closed_while_looked_at(scope: Scope, receive: Receive, send: Send) -> None:
    await Drives(own_coroutine().close, lambda: None)
    await hello(scope, receive, send)


@deed
async def is_closed_while_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await Drives(lambda: None, own_coroutine().close)


@deed
async def is_sent_into_while_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    task, coro = asyncio.current_task(), own_coroutine()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await Drives(lambda: None, lambda: coro.send(None))


@deed
async def drives_those_that_wait_for_a_request(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.001)
    for drive in ("send", "close", "throw"):
        for task in asyncio.all_tasks():
            if "ppserver worker" in repr(coro := task.get_coro()):
                with contextlib.suppress(StopIteration, TypeError):
                    getattr(coro, drive)(*[None] * (drive != "close"))
    await hello(scope, receive, send)


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
