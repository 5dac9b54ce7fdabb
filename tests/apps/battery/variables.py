"""Context variables stay in their request."""

from __future__ import annotations

import asyncio
import contextvars
import decimal

from battery.core import (
    VERSION,
    NotHereError,
    check,
    this_task,
    var,
)


@check
async def variable_does_not_reach_the_next_request() -> None:
    assert var.get() == "unset"
    var.set("first request")


@check
async def variable_does_not_reach_the_next_request__2() -> None:
    assert var.get() == "unset"
    await asyncio.sleep(0)
    assert var.get() == "unset"


@check
async def variable_after_suspension_does_not_reach_the_next_request() -> None:
    await asyncio.sleep(0.001)
    var.set("first request")
    await asyncio.sleep(0.001)


@check
async def variable_after_suspension_does_not_reach_the_next_request__2() -> None:
    assert var.get() == "unset"


@check
async def variable_survives_suspension() -> None:
    var.set("kept")
    await asyncio.sleep(0)
    assert var.get() == "kept"
    await asyncio.sleep(0.001)
    assert var.get() == "kept"


@check
async def variable_reset_without_suspension() -> None:
    token = var.set("temporary")
    var.reset(token)
    assert var.get() == "unset"


@check
async def variable_reset_after_suspension() -> None:
    token = var.set("temporary")
    await asyncio.sleep(0.001)
    var.reset(token)
    assert var.get() == "unset"


@check
async def variable_reset_from_before_second_suspension() -> None:
    await asyncio.sleep(0)
    token = var.set("temporary")
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    var.reset(token)
    assert var.get() == "unset"


@check
async def variable_is_inherited_by_a_child() -> None:
    var.set("parent")

    async def child() -> str:
        seen = var.get()
        var.set("child")
        await asyncio.sleep(0)
        return seen

    assert await asyncio.create_task(child()) == "parent"
    assert var.get() == "parent"


@check
async def variable_is_inherited_after_suspension() -> None:
    await asyncio.sleep(0)
    var.set("parent")

    async def child() -> str:
        return var.get()

    assert await asyncio.create_task(child()) == "parent"


@check
async def variable_in_a_callback() -> None:
    var.set("callback")
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(lambda: future.set_result(var.get()))
    assert await future == "callback"
    second = loop.create_future()
    loop.call_later(0.001, lambda: second.set_result(var.get()))
    assert await second == "callback"


@check
async def variable_in_a_thread() -> None:
    var.set("thread")
    assert await asyncio.to_thread(var.get) == "thread"
    assert await asyncio.to_thread(lambda: var.set("inner")) is not None
    assert var.get() == "thread"


@check
async def context_copy_sees_the_request() -> None:
    var.set("copy")
    assert contextvars.copy_context()[var] == "copy"
    await asyncio.sleep(0)
    assert contextvars.copy_context()[var] == "copy"


@check
async def task_get_context() -> None:
    if VERSION < (3, 12):
        raise NotHereError("Task.get_context came with Python 3.12")
    var.set("task")
    await asyncio.sleep(0)
    assert this_task().get_context()[var] == "task"


@check
async def decimal_context_is_per_request() -> None:
    decimal.getcontext().prec = 7
    await asyncio.sleep(0)
    assert decimal.getcontext().prec == 7


@check
async def decimal_context_is_per_request__2() -> None:
    assert decimal.getcontext().prec == 28
