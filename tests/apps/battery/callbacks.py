"""What happens to a task that the application keeps, watches or refers to weakly."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import weakref
from typing import Any

from support import ExpectedError

from battery.core import (
    check,
    kept,
    this_task,
    var,
)


@check
async def done_callback_fires() -> None:
    kept["fired"] = []
    this_task().add_done_callback(kept["fired"].append)
    kept["task"] = this_task()


@check
async def done_callback_fires__2() -> None:
    await asyncio.wait_for(asyncio.shield(kept["task"]), 5)
    await asyncio.sleep(0)
    assert kept["fired"] == [kept["task"]], kept["fired"]
    assert kept["task"].exception() is None
    assert kept["task"].result() is None


@check
async def done_callback_fires_after_suspension() -> None:
    kept["fired"] = []
    kept["task"] = this_task()
    this_task().add_done_callback(kept["fired"].append)
    await asyncio.sleep(0.001)
    assert not kept["fired"]


@check
async def done_callback_fires_after_suspension__2() -> None:
    await asyncio.wait_for(asyncio.shield(kept["task"]), 5)
    await asyncio.sleep(0)
    assert kept["fired"] == [kept["task"]]


@check
async def done_callback_alone_fires() -> None:
    """Nothing but the callback tells the server that this task must end."""
    fired = kept["fired"] = []
    this_task().add_done_callback(lambda _: fired.append(1))


@check
async def done_callback_alone_fires__2() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert kept["fired"] == [1]


@check
async def done_callback_in_a_context() -> None:
    context = contextvars.copy_context()
    context.run(var.set, "callback")
    fired = kept["fired"] = []
    this_task().add_done_callback(lambda _: fired.append(var.get()), context=context)


@check
async def done_callback_in_a_context__2() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert kept["fired"] == ["callback"]


@check
async def removed_done_callback_does_not_fire() -> None:
    fired = kept["fired"] = []

    def callback(task: asyncio.Task[Any]) -> None:
        fired.append(task)

    this_task().add_done_callback(callback)
    assert this_task().remove_done_callback(callback) == 1
    assert this_task().remove_done_callback(callback) == 0


@check
async def removed_done_callback_does_not_fire__2() -> None:
    await asyncio.sleep(0)
    assert kept["fired"] == []


@check
async def error_in_a_done_callback_is_reported() -> None:
    loop = asyncio.get_running_loop()
    kept["reported"] = []
    kept["handler"] = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: kept["reported"].append(context))

    def callback(_: asyncio.Task[Any]) -> None:
        raise ExpectedError("done callback")

    this_task().add_done_callback(callback)


@check
async def error_in_a_done_callback_is_reported__2() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_exception_handler(kept["handler"])
    assert [type(c["exception"]) for c in kept["reported"]] == [ExpectedError], kept["reported"]


@check
async def kept_task_is_distinct_and_done() -> None:
    kept["task"] = this_task()


@check
async def kept_task_is_distinct_and_done__2() -> None:
    assert kept["task"] is not this_task()
    await asyncio.wait_for(asyncio.shield(kept["task"]), 5)
    assert kept["task"].done()
    assert not kept["task"].cancelled()
    assert kept["task"] not in asyncio.all_tasks()


@check
async def kept_suspended_task_is_distinct_and_done() -> None:
    kept["task"] = this_task()
    await asyncio.sleep(0.001)


@check
async def kept_suspended_task_is_distinct_and_done__2() -> None:
    assert kept["task"] is not this_task()
    await asyncio.wait_for(asyncio.shield(kept["task"]), 5)
    assert kept["task"].done()


@check
async def kept_task_can_be_awaited_by_its_child() -> None:
    task = this_task()

    async def child() -> str:
        await task
        return "the request has ended"

    kept["child"] = asyncio.create_task(child())


@check
async def kept_task_can_be_awaited_by_its_child__2() -> None:
    assert await asyncio.wait_for(kept["child"], 5) == "the request has ended"


@check
async def kept_coroutine_of_a_task() -> None:
    """What get_coro() gave away must not reach the next request."""
    kept["coro"] = this_task().get_coro()


@check
async def kept_coroutine_of_a_task__2() -> None:
    await asyncio.sleep(0)
    assert this_task().get_coro() is not kept["coro"]
    assert inspect.getcoroutinestate(kept["coro"]) == inspect.CORO_CLOSED


@check
async def weak_keyed_state_does_not_leak() -> None:
    states = kept["states"] = weakref.WeakKeyDictionary()
    states[this_task()] = "first"


@check
async def weak_keyed_state_does_not_leak__2() -> None:
    assert this_task() not in kept["states"]
    await asyncio.sleep(0)
    assert this_task() not in kept["states"]
    gc.collect()
    assert not kept["states"]


@check
async def weak_set_does_not_leak() -> None:
    kept["set"] = weakref.WeakSet([this_task()])
    await asyncio.sleep(0)


@check
async def weak_set_does_not_leak__2() -> None:
    assert this_task() not in kept["set"]


@check
async def weak_reference_ends_with_the_request() -> None:
    ended = kept["ended"] = []
    kept["finalize"] = weakref.finalize(this_task(), ended.append, True)


@check
async def weak_reference_ends_with_the_request__2() -> None:
    await asyncio.sleep(0)
    gc.collect()
    assert kept["ended"] == [True]


@check
async def task_is_not_leaked() -> None:
    kept["count"] = len(asyncio.all_tasks())
    await asyncio.sleep(0)


@check
async def task_is_not_leaked__2() -> None:
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= kept["count"] + 1
