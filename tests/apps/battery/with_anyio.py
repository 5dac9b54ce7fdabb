"""anyio finds its way about."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from support import ExpectedError

from battery.core import (
    check,
    fail_soon,
    kept,
    this_task,
    value_after_sleep,
    var,
)


@check
async def anyio_backend_is_detected() -> None:
    assert anyio.get_current_task().id == id(this_task())
    assert anyio.get_current_task().name == this_task().get_name()
    with contextlib.suppress(ImportError):
        import sniffio

        assert sniffio.current_async_library() == "asyncio"
    await anyio.lowlevel.checkpoint()
    assert anyio.get_current_task().id == id(this_task())


@check
async def anyio_cancel_scope_without_suspension() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
    assert scope.cancel_called
    assert not scope.cancelled_caught


@check
async def anyio_cancel_scope_without_suspension__2() -> None:
    await asyncio.sleep(0)
    await anyio.lowlevel.checkpoint()
    assert this_task().cancelling() == 0


@check
async def anyio_move_on_after() -> None:
    with anyio.move_on_after(0.005) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert this_task().cancelling() == 0
    await asyncio.sleep(0)


@check
async def anyio_move_on_after_at_once() -> None:
    with anyio.move_on_after(0) as scope:
        await anyio.lowlevel.checkpoint()
        raise AssertionError("not cancelled")
    assert scope.cancelled_caught


@check
async def anyio_move_on_without_need() -> None:
    with anyio.move_on_after(10) as scope:
        pass
    assert not scope.cancelled_caught


@check
async def anyio_move_on_without_need__2() -> None:
    await asyncio.sleep(0.001)
    assert this_task().cancelling() == 0


@check
async def anyio_fail_after() -> None:
    try:
        with anyio.fail_after(0.005):
            await anyio.sleep_forever()
    except TimeoutError:
        pass
    else:
        raise AssertionError("no TimeoutError")


@check
async def anyio_shield() -> None:
    steps = []
    with anyio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.001)
            steps.append("shielded")
        await anyio.lowlevel.checkpoint()
        steps.append("not reached")
    assert steps == ["shielded"]


@check
async def anyio_task_group() -> None:
    seen = []

    async def child(number: int) -> None:
        await anyio.sleep(0)
        seen.append(number)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(child, number)
    assert sorted(seen) == [0, 1, 2, 3]


@check
async def anyio_task_group_cancel() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.cancel_scope.cancel()
    assert this_task().cancelling() == 0
    await asyncio.sleep(0)


@check
async def anyio_task_group_error() -> None:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fail_soon)
            await anyio.sleep_forever()
    except* ExpectedError:
        pass
    assert this_task().cancelling() == 0


@check
async def anyio_task_group_start() -> None:
    async def service(*, task_status: anyio.abc.TaskStatus[int]) -> None:
        task_status.started(21)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        assert await group.start(service) == 21
        group.cancel_scope.cancel()


@check
async def anyio_to_thread() -> None:
    var.set("thread")
    assert await anyio.to_thread.run_sync(var.get) == "thread"


@check
async def anyio_from_thread() -> None:
    def in_thread() -> Any:
        return anyio.from_thread.run(value_after_sleep, 31)

    assert await anyio.to_thread.run_sync(in_thread) == 31


@check
async def anyio_state_does_not_leak() -> None:
    kept["info"] = anyio.get_current_task()
    with anyio.CancelScope():
        await anyio.lowlevel.checkpoint()


@check
async def anyio_state_does_not_leak__2() -> None:
    info = anyio.get_current_task()
    assert info.id == id(this_task())
    assert not info.has_pending_cancellation()
    with anyio.CancelScope() as scope:
        await anyio.lowlevel.checkpoint()
    assert not scope.cancelled_caught


@check
async def anyio_streams_and_events() -> None:
    send, receive = anyio.create_memory_object_stream[int](1)
    event = anyio.Event()

    async def produce() -> None:
        async with send:
            for number in range(5):
                await send.send(number)
        event.set()

    async with anyio.create_task_group() as group, receive:
        group.start_soon(produce)
        assert [number async for number in receive] == list(range(5))
        await event.wait()
