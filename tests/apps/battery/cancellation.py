"""Cancelling: by oneself, by others, in time and too late."""

from __future__ import annotations

import asyncio
import contextlib

from battery.core import (
    VERSION,
    check,
    forever,
    kept,
    this_task,
    value_after_sleep,
)


@check
async def cancelling_starts_at_zero() -> None:
    assert this_task().cancelling() == 0
    await asyncio.sleep(0)
    assert this_task().cancelling() == 0


@check
async def self_cancel_is_delivered_at_a_bare_yield() -> None:
    assert this_task().cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        assert this_task().uncancel() == 0
    else:
        raise AssertionError("no CancelledError")
    await asyncio.sleep(0)


@check
async def self_cancel_is_delivered_at_a_future() -> None:
    this_task().cancel()
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        this_task().uncancel()
    else:
        raise AssertionError("no CancelledError")


@check
async def cancel_before_the_next_step_has_its_message() -> None:
    """It does not suspend: the Task that the next request gets waits already."""


@check
async def cancel_before_the_next_step_has_its_message__2() -> None:
    """It comes after the application has begun to wait, and before its Task has noticed."""
    asyncio.get_running_loop().call_soon(this_task().cancel, "because")
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError as error:
        assert error.args == ("because",), error.args
        this_task().uncancel()
    else:
        raise AssertionError("not cancelled")


@check
async def self_cancel_is_delivered_after_a_suspension() -> None:
    await asyncio.sleep(0.001)
    this_task().cancel()
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        this_task().uncancel()
    else:
        raise AssertionError("no CancelledError")


@check
async def self_cancel_without_suspension_harms_nobody() -> None:
    this_task().cancel()


@check
async def self_cancel_without_suspension_harms_nobody__2() -> None:
    assert this_task().cancelling() == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    assert this_task().cancelling() == 0


@check
async def cancel_carries_its_message() -> None:
    this_task().cancel("why not")
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError as exc:
        assert exc.args == ("why not",), exc.args
        this_task().uncancel()
    else:
        raise AssertionError("no CancelledError")


@check
async def cancel_counts() -> None:
    task = this_task()
    task.cancel()
    task.cancel()
    assert task.cancelling() == 2
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert task.uncancel() == 1
    assert task.uncancel() == 0
    assert task.uncancel() == 0
    await asyncio.sleep(0)


@check
async def uncancel_before_the_suspension() -> None:
    task = this_task()
    task.cancel()
    assert task.uncancel() == 0
    delivered = False
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        delivered = True
    # Since 3.13 the last uncancel() takes the request back; before, it is still delivered.
    assert delivered == (VERSION < (3, 13)), delivered


@check
async def uncancel_without_suspension_harms_nobody() -> None:
    this_task().cancel()
    this_task().uncancel()


@check
async def uncancel_without_suspension_harms_nobody__2() -> None:
    await asyncio.sleep(0)
    assert this_task().cancelling() == 0


@check
async def cancelled_from_outside_while_suspended() -> None:
    task = this_task()
    asyncio.get_running_loop().call_later(0.001, task.cancel)
    try:
        await forever()
    except asyncio.CancelledError:
        assert task.cancelling() == 1
        task.uncancel()
    else:
        raise AssertionError("no CancelledError")
    await asyncio.sleep(0)


@check
async def cancelled_by_its_child() -> None:
    task = this_task()

    async def child() -> None:
        task.cancel("from the child")

    one = asyncio.create_task(child())
    try:
        await forever()
    except asyncio.CancelledError as exc:
        assert exc.args == ("from the child",)
        task.uncancel()
    await one


@check
async def cancelled_while_a_bare_yield_is_scheduled() -> None:
    task = this_task()
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task.uncancel()
    else:
        raise AssertionError("no CancelledError")


@check
async def late_cancel_misses_the_next_request() -> None:
    asyncio.get_running_loop().call_later(0.01, this_task().cancel)


@check
async def late_cancel_misses_the_next_request__2() -> None:
    await asyncio.sleep(0.03)
    assert this_task().cancelling() == 0


@check
async def late_cancel_of_a_suspended_request_misses_the_next() -> None:
    kept["late"] = this_task()
    await asyncio.sleep(0.001)


@check
async def late_cancel_of_a_suspended_request_misses_the_next__2() -> None:
    late = kept.pop("late")
    late.cancel()
    await asyncio.sleep(0.001)
    late.cancel()  # This one is suspended by now, too.
    await asyncio.sleep(0.001)
    assert this_task().cancelling() == 0


@check
async def caught_cancel_leaves_nothing() -> None:
    """The request forgets to call uncancel()."""
    this_task().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


@check
async def caught_cancel_leaves_nothing__2() -> None:
    assert this_task().cancelling() == 0
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.sleep(0)


@check
async def child_cancellation_stays_in_the_child() -> None:
    child = asyncio.create_task(forever())
    await asyncio.sleep(0)
    child.cancel()
    try:
        await child
    except asyncio.CancelledError:
        assert this_task().cancelling() == 0
    else:
        raise AssertionError("no CancelledError")
    assert child.cancelled()


@check
async def cancelling_a_parent_cancels_what_it_awaits() -> None:
    inner = asyncio.create_task(forever())
    outer_started = asyncio.Event()

    async def outer() -> None:
        outer_started.set()
        await inner

    outer_task = asyncio.create_task(outer())
    await outer_started.wait()
    outer_task.cancel()
    await asyncio.wait([outer_task])
    assert inner.cancelled()
    assert outer_task.cancelled()


@check
async def own_cancel_reaches_the_awaited_child() -> None:
    child = asyncio.create_task(forever())
    asyncio.get_running_loop().call_later(0.001, this_task().cancel)
    try:
        await child
    except asyncio.CancelledError:
        this_task().uncancel()
    assert child.cancelled()


@check
async def shield_keeps_the_child() -> None:
    child = asyncio.create_task(value_after_sleep("done", 0.005))
    asyncio.get_running_loop().call_soon(this_task().cancel)
    try:
        await asyncio.shield(child)
    except asyncio.CancelledError:
        this_task().uncancel()
    else:
        raise AssertionError("no CancelledError")
    assert await child == "done"


@check
async def cancel_of_a_done_task_says_no() -> None:
    child = asyncio.create_task(value_after_sleep(1))
    await child
    assert not child.cancel()
