"""Everything that can be awaited, rightly and wrongly."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import sys
import threading
import types
from collections.abc import Generator
from typing import Any

from support import ExpectedError

from battery.core import (
    check,
    this_task,
    value_after_sleep,
)


@types.coroutine
def yield_bare() -> Generator[None, None, str]:
    yield
    return "resumed"


class Yields:
    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.thing)


@check
async def bare_yields() -> None:
    for _ in range(50):
        assert await yield_bare() == "resumed"


@check
async def bare_yield_lets_others_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(10):
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(12):
        await asyncio.sleep(0)
    assert turns == 10
    await task


@check
async def generator_based_awaitable() -> None:
    future = asyncio.get_running_loop().create_future()

    @types.coroutine
    def waits() -> Generator[Any, None, str]:
        result = yield from future
        return f"got {result}"

    asyncio.get_running_loop().call_soon(future.set_result, 7)
    assert await waits() == "got 7"


@check
async def awaitable_object() -> None:
    class Waits:
        def __await__(self) -> Generator[Any, None, int]:
            yield from asyncio.sleep(0.001).__await__()
            return 8

    assert await Waits() == 8


@check
async def awaitable_without_suspension() -> None:
    class Ready:
        def __await__(self) -> Generator[Any, None, int]:
            return 9
            yield

    assert await Ready() == 9


@check
async def bad_yield_is_an_error() -> None:
    for first in (True, False):
        if not first:
            await asyncio.sleep(0)
        try:
            await Yields(42)
        except RuntimeError as exc:
            assert "bad yield" in str(exc), exc
        else:
            raise AssertionError("yielding 42 was accepted")
        assert this_task().cancelling() == 0


@check
async def bare_yield_of_a_future_is_an_error() -> None:
    future = asyncio.get_running_loop().create_future()
    try:
        await Yields(future)
    except RuntimeError as exc:
        assert "yield" in str(exc), exc
    else:
        raise AssertionError("a future that nobody marked as awaited was accepted")
    future.cancel()


@check
async def bad_yield_of_a_generator_is_an_error() -> None:
    def generator() -> Generator[None, None, None]:
        yield

    try:
        await Yields(generator())
    except RuntimeError:
        pass
    else:
        raise AssertionError("a generator was accepted")


async def await_itself() -> None:
    try:
        await this_task()
    except RuntimeError as exc:
        assert "itself" in str(exc), exc
    else:
        raise AssertionError("awaiting itself was accepted")


@check
async def awaiting_itself_is_an_error() -> None:
    await await_itself()
    await asyncio.sleep(0)


@check
async def awaiting_itself_after_suspension_is_an_error() -> None:
    await asyncio.sleep(0)
    await await_itself()
    await asyncio.sleep(0)


@check
async def future_of_another_loop_is_an_error() -> None:
    other = asyncio.new_event_loop()
    future = other.create_future()
    try:
        await future
    except RuntimeError as exc:
        assert "different loop" in str(exc), exc
    else:
        raise AssertionError("a future of another loop was accepted")
    finally:
        future.cancel()
        other.close()


@check
async def coroutine_awaited_twice_is_an_error() -> None:
    coro = value_after_sleep(1)
    assert await coro == 1
    try:
        await coro
    except RuntimeError as exc:
        assert "already awaited" in str(exc)
    else:
        raise AssertionError("a coroutine ran twice")


@check
async def future_awaited_twice() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    assert await future == 1
    assert await future == 1


@check
async def future_shared_by_two_waiters() -> None:
    future = asyncio.get_running_loop().create_future()

    async def waiter() -> int:
        return await future

    other = asyncio.create_task(waiter())
    asyncio.get_running_loop().call_later(0.001, future.set_result, 4)
    assert await future == 4
    assert await other == 4


@check
async def future_error_is_raised() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ExpectedError("future"))
    try:
        await future
    except ExpectedError:
        pass
    else:
        raise AssertionError("no error")


@check
async def future_cancelled_is_raised() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    try:
        await future
    except asyncio.CancelledError:
        assert this_task().cancelling() == 0
    else:
        raise AssertionError("no CancelledError")


@check
async def future_set_from_a_thread() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, 11))
    thread.start()
    assert await future == 11
    thread.join()


@check
async def future_of_concurrent_futures() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    timer = threading.Timer(0.005, future.set_result, (12,))
    timer.start()
    assert await asyncio.wrap_future(future) == 12
    timer.join()


@check
async def stop_iteration_becomes_runtime_error() -> None:
    async def raises() -> None:
        raise StopIteration(1)

    try:
        await raises()
    except RuntimeError:
        pass
    else:
        raise AssertionError("no RuntimeError")


@check
async def deep_chain_of_coroutines() -> None:
    async def deeper(level: int) -> int:
        if level:
            return 1 + await deeper(level - 1)
        await asyncio.sleep(0)
        return 0

    assert await deeper(200) == 200


@check
async def async_generators() -> None:
    closed = []

    async def numbers() -> Any:
        try:
            for number in range(10):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(True)

    async with contextlib.aclosing(numbers()) as stream:
        async for number in stream:
            if number == 3:
                break
    assert closed == [True]
    assert [n async for n in numbers()] == list(range(10))


@check
async def abandoned_async_generator_is_finalized() -> None:
    closed = asyncio.Event()

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.set()

    stream = numbers()
    assert await anext(stream) == 1
    del stream
    gc.collect()
    await asyncio.wait_for(closed.wait(), 5)


@check
async def same_thread_after_suspension() -> None:
    before = threading.get_ident()
    await asyncio.sleep(0.001)
    assert threading.get_ident() == before


@check
async def no_exception_is_being_handled() -> None:
    assert sys.exc_info() == (None, None, None)
    await asyncio.sleep(0)
    assert sys.exc_info() == (None, None, None)


@check
async def handled_exception_survives_suspension() -> None:
    try:
        raise ExpectedError("handled")
    except ExpectedError as exc:
        await asyncio.sleep(0.001)
        assert sys.exc_info()[1] is exc
