"""Timeouts, groups and other structures of tasks."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from support import ExpectedError

from battery.core import (
    VERSION,
    NotHereError,
    check,
    fail_soon,
    forever,
    kept,
    this_task,
    value_after_sleep,
    var,
)


@check
async def timeout_without_suspension() -> None:
    async with asyncio.timeout(10) as scope:
        assert scope.when() is not None
    assert not scope.expired()


@check
async def timeout_without_suspension__2() -> None:
    await asyncio.sleep(0)
    assert this_task().cancelling() == 0


@check
async def timeout_with_suspension() -> None:
    async with asyncio.timeout(10):
        await asyncio.sleep(0.001)


@check
async def timeout_expires() -> None:
    try:
        async with asyncio.timeout(0.005):
            await forever()
    except TimeoutError:
        assert this_task().cancelling() == 0
    else:
        raise AssertionError("no TimeoutError")
    await asyncio.sleep(0)


@check
async def timeout_expires__2() -> None:
    async with asyncio.timeout(5):
        await asyncio.sleep(0.01)


@check
async def timeout_already_over() -> None:
    try:
        async with asyncio.timeout(-1):
            await forever()
    except TimeoutError:
        assert this_task().cancelling() == 0
    else:
        raise AssertionError("no TimeoutError")


@check
async def timeout_none() -> None:
    async with asyncio.timeout(None):
        await asyncio.sleep(0)


@check
async def timeout_nested() -> None:
    try:
        async with asyncio.timeout(0.005) as outer, asyncio.timeout(10) as inner:
            await forever()
    except TimeoutError:
        assert outer.expired()
        assert not inner.expired()
    else:
        raise AssertionError("no TimeoutError")


@check
async def timeout_rescheduled() -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10) as scope:
            scope.reschedule(loop.time() + 0.005)
            await forever()
    except TimeoutError:
        assert scope.expired()
    else:
        raise AssertionError("no TimeoutError")


@check
async def timeout_at() -> None:
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + 0.005):
            await forever()
    except TimeoutError:
        pass
    else:
        raise AssertionError("no TimeoutError")


@check
async def wait_for_result() -> None:
    assert await asyncio.wait_for(value_after_sleep(5), 5) == 5


@check
async def wait_for_without_suspension() -> None:
    async def at_once() -> int:
        return 6

    assert await asyncio.wait_for(at_once(), 5) == 6


@check
async def wait_for_timeout() -> None:
    try:
        await asyncio.wait_for(forever(), 0.005)
    except TimeoutError:
        assert this_task().cancelling() == 0
    else:
        raise AssertionError("no TimeoutError")


@check
async def task_group_empty() -> None:
    async with asyncio.TaskGroup():
        pass


@check
async def task_group_results() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(value_after_sleep(n)) for n in range(5)]
    assert [task.result() for task in tasks] == [0, 1, 2, 3, 4]


@check
async def task_group_error_cancels_the_body() -> None:
    cancelled = False
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_soon())
            try:
                await forever()
            except asyncio.CancelledError:
                cancelled = True
                raise
    except* ExpectedError:
        pass
    assert cancelled
    assert this_task().cancelling() == 0
    await asyncio.sleep(0)


@check
async def task_group_error_cancels_siblings() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(forever())
            group.create_task(fail_soon())
    except* ExpectedError:
        pass
    assert sibling.cancelled()
    # Before 3.13 a group that fails while it is being left forgets its uncancel().
    assert this_task().cancelling() == (0 if VERSION >= (3, 13) else 1)


@check
async def task_group_in_a_timeout() -> None:
    try:
        async with asyncio.timeout(0.005), asyncio.TaskGroup() as group:
            group.create_task(forever())
    except TimeoutError:
        assert this_task().cancelling() == 0
    else:
        raise AssertionError("no TimeoutError")


@check
async def gather_results() -> None:
    assert await asyncio.gather(*(value_after_sleep(n) for n in range(4))) == [0, 1, 2, 3]


@check
async def gather_errors() -> None:
    first, second = await asyncio.gather(fail_soon(), value_after_sleep(1), return_exceptions=True)
    assert isinstance(first, ExpectedError)
    assert second == 1
    try:
        await asyncio.gather(fail_soon(), value_after_sleep(1))
    except ExpectedError:
        pass
    else:
        raise AssertionError("no error")


@check
async def wait_first_completed() -> None:
    quick, slow = asyncio.create_task(value_after_sleep(1)), asyncio.create_task(forever())
    done, pending = await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
    assert done == {quick}
    assert pending == {slow}
    slow.cancel()
    await asyncio.wait([slow])


@check
async def as_completed() -> None:
    coros = [value_after_sleep(n, n / 1000) for n in (3, 1, 2)]
    assert sorted([await one for one in asyncio.as_completed(coros)]) == [1, 2, 3]


@check
async def create_task_runs_after_the_request() -> None:
    kept["event"] = asyncio.Event()

    async def later() -> str:
        await kept["event"].wait()
        return "ran"

    kept["task"] = asyncio.create_task(later())


@check
async def create_task_runs_after_the_request__2() -> None:
    kept["event"].set()
    assert await asyncio.wait_for(kept["task"], 5) == "ran"


@check
async def create_task_with_a_context() -> None:
    context = contextvars.copy_context()
    context.run(var.set, "given")

    async def child() -> str:
        return var.get()

    assert await asyncio.create_task(child(), context=context) == "given"
    assert var.get() == "unset"


@check
async def eager_task_in_a_request() -> None:
    if VERSION < (3, 12):
        raise NotHereError("eager tasks came with Python 3.12")
    me = this_task()

    async def child() -> asyncio.Task[Any]:
        return this_task()

    task = asyncio.Task(child(), loop=asyncio.get_running_loop(), eager_start=True)
    assert task.done()
    assert task.result() is task
    assert this_task() is me
    await asyncio.sleep(0)
    assert this_task() is me


@check
async def eager_task_factory_of_the_application() -> None:
    if VERSION < (3, 12):
        raise NotHereError("eager tasks came with Python 3.12")
    loop = asyncio.get_running_loop()
    if "uvloop" in type(loop).__module__ and VERSION >= (3, 13):
        raise NotHereError("uvloop hands task factories an argument that asyncio's do not take")
    before = loop.get_task_factory()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        assert await asyncio.gather(value_after_sleep(1), value_after_sleep(2)) == [1, 2]
        async with asyncio.TaskGroup() as group:
            one = group.create_task(value_after_sleep(3))
        assert one.result() == 3
    finally:
        loop.set_task_factory(before)


@check
async def task_factory_of_the_application() -> None:
    """Set during one request, it makes the tasks of the next one without upsetting it."""
    loop = asyncio.get_running_loop()
    kept["factory"] = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)


@check
async def task_factory_of_the_application__2() -> None:
    assert await asyncio.create_task(value_after_sleep(1)) == 1
    asyncio.get_running_loop().set_task_factory(kept["factory"])
