"""The loop, its timers, threads and locks; debug mode."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

from support import ExpectedError

from battery.core import (
    check,
    kept,
    this_task,
    value_after_sleep,
)


@check
async def loop_is_running() -> None:
    loop = asyncio.get_running_loop()
    assert loop.is_running()
    assert not loop.is_closed()
    assert asyncio.get_event_loop() is loop
    await asyncio.sleep(0)
    assert asyncio.get_running_loop() is loop


@check
async def nested_run_is_an_error() -> None:
    coro = value_after_sleep(1)
    try:
        asyncio.run(coro)
    except RuntimeError as exc:
        assert "running event loop" in str(exc), exc
    else:
        raise AssertionError("a loop ran inside a loop")
    finally:
        coro.close()
    assert asyncio.get_running_loop().is_running()
    assert isinstance(asyncio.current_task(), asyncio.Task)


@check
async def run_until_complete_is_an_error() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    try:
        loop.run_until_complete(future)
    except RuntimeError:
        pass
    else:
        raise AssertionError("a running loop ran again")
    finally:
        future.cancel()
    await asyncio.sleep(0)


@check
async def timers_are_ordered() -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    done = loop.create_future()
    start = loop.time()  # one base for all: a pause of the machine must not reorder them
    for number in (3, 1, 2):
        loop.call_at(start + number / 100, order.append, number)
    loop.call_at(start + 0.05, done.set_result, None)
    await done
    assert order == [1, 2, 3], order


@check
async def timer_is_on_time() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(0.02)
    assert 0.018 <= loop.time() - before < 2


@check
async def call_soon_is_in_order() -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    for number in range(5):
        loop.call_soon(order.append, number)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [0, 1, 2, 3, 4]


@check
async def cancelled_timer_does_not_fire() -> None:
    fired: list[int] = []
    handle = asyncio.get_running_loop().call_later(0.001, fired.append, 1)
    handle.cancel()
    await asyncio.sleep(0.01)
    assert not fired


@check
async def to_thread_results_and_errors() -> None:
    assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()

    def fails() -> None:
        raise ExpectedError("thread")

    try:
        await asyncio.to_thread(fails)
    except ExpectedError:
        pass
    else:
        raise AssertionError("no error")


@check
async def executor() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        loop = asyncio.get_running_loop()
        results = [loop.run_in_executor(pool, pow, 2, n) for n in range(8)]
        assert await asyncio.gather(*results) == [2**n for n in range(8)]


@check
async def run_coroutine_threadsafe() -> None:
    loop = asyncio.get_running_loop()

    def in_thread() -> int:
        return asyncio.run_coroutine_threadsafe(value_after_sleep(13), loop).result(5)

    assert await asyncio.to_thread(in_thread) == 13


@check
async def another_loop_in_a_thread() -> None:
    assert await asyncio.to_thread(lambda: asyncio.run(value_after_sleep(14, 0.001))) == 14
    assert asyncio.get_running_loop().is_running()
    assert asyncio.current_task() is not None


@check
async def locks_and_queues() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    lock, semaphore, condition = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Condition()

    async def produce() -> None:
        for number in range(6):
            async with lock, semaphore:
                await queue.put(number)

    producer = asyncio.create_task(produce())
    assert [await queue.get() for _ in range(6)] == list(range(6))
    await producer

    async def notify() -> None:
        async with condition:
            condition.notify_all()

    async with condition:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(notify()))
        await condition.wait()


@check
async def lock_is_free_for_the_next_request() -> None:
    lock = kept["lock"] = asyncio.Lock()
    await lock.acquire()
    asyncio.get_running_loop().call_later(0.005, lock.release)


@check
async def lock_is_free_for_the_next_request__2() -> None:
    async with asyncio.timeout(5), kept["lock"]:
        pass


@check
async def debug_mode_switched_on() -> None:
    loop = asyncio.get_running_loop()
    kept["debug"] = loop.get_debug()
    loop.set_debug(True)
    await asyncio.sleep(0)
    assert loop.get_debug()


@check
async def debug_mode_switched_on__2() -> None:
    loop = asyncio.get_running_loop()
    try:
        before = this_task()
        await asyncio.sleep(0.001)
        assert this_task() is before
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        loop.call_soon(lambda: None)
        await asyncio.sleep(0)
    finally:
        loop.set_debug(kept["debug"])
