"""Which task runs a request, and how it looks from outside."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import io
import types
import weakref
from typing import Any

from battery.core import (
    chain_names,
    check,
    this_task,
)


@check
async def current_task_is_a_task() -> None:
    assert isinstance(asyncio.current_task(), asyncio.Task)


@check
async def current_task_takes_the_loop() -> None:
    assert asyncio.current_task(asyncio.get_running_loop()) is this_task()


@check
async def current_task_is_a_future() -> None:
    assert asyncio.isfuture(this_task())
    assert isinstance(this_task(), asyncio.Future)


@check
async def current_task_same_after_suspension() -> None:
    before = this_task()
    await asyncio.sleep(0.001)
    assert this_task() is before


@check
async def current_task_same_after_bare_yield() -> None:
    before = this_task()
    await asyncio.sleep(0)
    assert this_task() is before


@check
async def current_task_same_after_many_suspensions() -> None:
    before = this_task()
    for round_number in range(20):
        await asyncio.sleep(0.0001 if round_number % 2 else 0)
        assert this_task() is before


@check
async def current_task_same_after_a_done_future() -> None:
    before = this_task()
    future = asyncio.get_running_loop().create_future()
    future.set_result(3)
    assert await future == 3
    assert this_task() is before


@check
async def current_task_is_none_in_a_callback() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(lambda: future.set_result(asyncio.current_task()))
    assert await future is None


@check
async def current_task_of_a_child_is_the_child() -> None:
    async def child() -> asyncio.Task[Any]:
        return this_task()

    task = asyncio.create_task(child())
    assert await task is task
    assert this_task() is not task


@check
async def in_all_tasks_before_suspension() -> None:
    assert this_task() in asyncio.all_tasks()


@check
async def in_all_tasks_after_suspension() -> None:
    await asyncio.sleep(0.001)
    assert this_task() in asyncio.all_tasks()


@check
async def all_tasks_are_not_done() -> None:
    assert not [task for task in asyncio.all_tasks() if task.done()]


@check
async def task_state_while_running() -> None:
    task = this_task()
    assert not task.done()
    assert not task.cancelled()
    for ask in (task.result, task.exception):
        try:
            ask()
        except asyncio.InvalidStateError:
            pass
        else:
            raise AssertionError(f"{ask.__name__} of a running task gave an answer")


@check
async def task_refuses_a_result() -> None:
    for call in (lambda: this_task().set_result(1), lambda: this_task().set_exception(OSError())):
        try:
            call()
        except RuntimeError:
            pass
        else:
            raise AssertionError("a task took a result from outside")


@check
async def task_get_loop() -> None:
    assert this_task().get_loop() is asyncio.get_running_loop()


@check
async def task_get_name() -> None:
    assert isinstance(this_task().get_name(), str)
    assert this_task().get_name()


@check
async def task_set_name() -> None:
    this_task().set_name("renamed by the battery")
    await asyncio.sleep(0)
    assert this_task().get_name() == "renamed by the battery"


@check
async def task_set_name__2() -> None:
    assert this_task().get_name() != "renamed by the battery"


@check
async def task_name_set_without_suspension() -> None:
    this_task().set_name("renamed at once")


@check
async def task_name_set_without_suspension__2() -> None:
    assert this_task().get_name() != "renamed at once"
    await asyncio.sleep(0)
    assert this_task().get_name() != "renamed at once"


@check
async def task_repr() -> None:
    text = repr(this_task())
    assert "Task" in text, text
    assert "pending" in text or "running" in text, text
    await asyncio.sleep(0)
    assert "Task" in repr(this_task())


@check
async def task_hash_and_weakref() -> None:
    task = this_task()
    assert {task: 1}[task] == 1
    assert weakref.ref(task)() is task


@check
async def task_get_coro() -> None:
    coro = this_task().get_coro()
    assert isinstance(coro, collections.abc.Coroutine), type(coro)
    assert asyncio.iscoroutine(coro)


@check
async def task_coroutine_state() -> None:
    assert inspect.getcoroutinestate(this_task().get_coro()) == inspect.CORO_RUNNING
    task = this_task()

    async def look() -> str:
        return inspect.getcoroutinestate(task.get_coro())

    assert await asyncio.create_task(look()) == inspect.CORO_SUSPENDED


@check
async def task_get_stack() -> None:
    assert all(isinstance(frame, types.FrameType) for frame in this_task().get_stack())
    task = this_task()

    async def look() -> list[types.FrameType]:
        return task.get_stack()

    frames = await asyncio.create_task(look())
    assert frames
    assert all(isinstance(frame, types.FrameType) for frame in frames)


@check
async def task_print_stack() -> None:
    task = this_task()

    async def look() -> str:
        out = io.StringIO()
        task.print_stack(file=out)
        return out.getvalue()

    text = await asyncio.create_task(look())
    assert text.startswith("Stack for"), text
    assert "File " in text, text


@check
async def debugger_sees_the_application() -> None:
    task = this_task()

    async def look() -> list[str]:
        return chain_names(task)

    names = await asyncio.create_task(look())
    assert "debugger_sees_the_application" in names, names
