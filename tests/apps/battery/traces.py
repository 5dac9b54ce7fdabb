"""What a request leaves on its Task, or keeps of it, and the next request must not find."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from typing import Any

from battery.core import (
    VERSION,
    NotHereError,
    check,
    kept,
    this_task,
    var,
)

box: contextvars.ContextVar[list[str]] = contextvars.ContextVar("box")
box.set([])  # the server's own context may have it


def own_context() -> contextvars.Context:
    if VERSION < (3, 12):
        raise NotHereError("Task.get_context came with Python 3.12")
    context = this_task().get_context()  # type: ignore[attr-defined]
    assert isinstance(context, contextvars.Context)
    return context


@check
async def attribute_does_not_reach_the_next_request() -> None:
    this_task().user = "alice"  # type: ignore[attr-defined]


@check
async def attribute_does_not_reach_the_next_request__2() -> None:
    assert not hasattr(this_task(), "user")
    await asyncio.sleep(0)
    assert not hasattr(this_task(), "user")


@check
async def attribute_after_suspension_does_not_reach_the_next_request() -> None:
    this_task().user = "alice"  # type: ignore[attr-defined]
    await asyncio.sleep(0.001)
    assert this_task().user == "alice"  # type: ignore[attr-defined]


@check
async def attribute_after_suspension_does_not_reach_the_next_request__2() -> None:
    assert not hasattr(this_task(), "user")


class SetsOnDeath:
    def __del__(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.user = "alice"  # type: ignore[attr-defined]
            task.set_name("alice")


@check
async def what_dies_with_the_scope_leaves_nothing() -> None:
    kept["scope"]["state of the request"] = SetsOnDeath()


@check
async def what_dies_with_the_scope_leaves_nothing__2() -> None:
    assert not hasattr(this_task(), "user")
    assert this_task().get_name() != "alice"


@check
async def private_marks_do_not_reach_the_next_request() -> None:
    task: Any = this_task()
    task._log_destroy_pending = False
    task._cancel_message = "alice"
    task._asyncio_future_blocking = True


@check
async def private_marks_do_not_reach_the_next_request__2() -> None:
    task: Any = this_task()
    assert task._log_destroy_pending is True
    assert task._cancel_message is None
    assert task._asyncio_future_blocking is False


@check
async def cancel_message_that_was_taken_back_does_not_reach_the_next_request() -> None:
    task: Any = this_task()
    task.cancel("alice")
    task.uncancel()


@check
async def cancel_message_that_was_taken_back_does_not_reach_the_next_request__2() -> None:
    task: Any = this_task()
    assert task._cancel_message is None
    assert not task._must_cancel


@check
async def awaited_future_does_not_reach_the_next_request() -> None:
    """While it runs, a Task should wait for nothing. If it does, that is its own."""
    waiter = kept["waiter"] = getattr(this_task(), "_fut_waiter", None)
    if waiter is not None:
        waiter.user = "alice"


@check
async def awaited_future_does_not_reach_the_next_request__2() -> None:
    waiter = getattr(this_task(), "_fut_waiter", None)
    assert waiter is None or waiter is not kept["waiter"]
    assert not hasattr(waiter, "user")


@check
async def attribute_of_an_awaited_future_does_not_reach_the_next_request() -> None:
    waiter = getattr(this_task(), "_fut_waiter", None)
    if waiter is not None:
        waiter.user = "alice"


@check
async def attribute_of_an_awaited_future_does_not_reach_the_next_request__2() -> None:
    assert not hasattr(getattr(this_task(), "_fut_waiter", None), "user")


@check
async def callback_of_an_awaited_future_does_not_see_the_next_request() -> None:
    seen = kept["seen"] = []
    waiter = getattr(this_task(), "_fut_waiter", None)
    if waiter is not None:
        waiter.add_done_callback(lambda _: seen.append(kept.get("request")))


@check
async def callback_of_an_awaited_future_does_not_see_the_next_request__2() -> None:
    kept["request"] = "bob"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del kept["request"]
    assert "bob" not in kept["seen"]


@check
async def equal_value_of_a_variable_does_not_reach_the_next_request() -> None:
    kept["box"] = []
    box.set(kept["box"])


@check
async def equal_value_of_a_variable_does_not_reach_the_next_request__2() -> None:
    kept["box"].append("alice")
    assert "alice" not in box.get([])
    assert box.get([]) is not kept["box"]


@check
async def token_is_of_no_use_to_the_next_request() -> None:
    first = var.set("alice")
    kept["token"] = var.set("first")
    var.reset(first)


@check
async def token_is_of_no_use_to_the_next_request__2() -> None:
    try:
        var.reset(kept["token"])
    except ValueError:
        pass
    else:
        raise AssertionError("a variable was reset to what another request had")
    assert var.get() == "unset"


@check
async def kept_context_is_of_the_request_alone() -> None:
    kept["context"] = own_context()


@check
async def kept_context_is_of_the_request_alone__2() -> None:
    assert own_context() is not kept["context"]
    kept["context"].run(var.set, "alice")
    assert var.get() == "unset"


@check
async def weakly_kept_context_is_of_the_request_alone() -> None:
    kept["context"] = weakref.ref(own_context())


@check
async def weakly_kept_context_is_of_the_request_alone__2() -> None:
    assert kept["context"]() is not own_context()


@check
async def task_in_the_context_of_its_request_is_not_in_the_next() -> None:
    async def later() -> None:
        var.set("alice")
        kept["set"].set()
        await kept["end"].wait()

    kept["set"], kept["end"] = asyncio.Event(), asyncio.Event()
    context: Any = own_context()
    kept["task"] = asyncio.get_running_loop().create_task(later(), context=context)


@check
async def task_in_the_context_of_its_request_is_not_in_the_next__2() -> None:
    await kept["set"].wait()
    assert var.get() == "unset"


@check
async def task_in_the_context_of_its_request_is_not_in_the_next__3() -> None:
    assert var.get() == "unset"
    kept["end"].set()
    await kept["task"]


@check
async def callback_in_the_context_of_its_request_is_not_in_the_next() -> None:
    context = own_context()
    asyncio.get_running_loop().call_soon(var.set, "alice", context=context)


@check
async def callback_in_the_context_of_its_request_is_not_in_the_next__2() -> None:
    assert var.get() == "unset"
    await asyncio.sleep(0)
    assert var.get() == "unset"


@check
async def thread_in_the_context_of_a_request_stops_nobody() -> None:
    context = own_context()
    go, kept["inside"], kept["leave"] = threading.Event(), threading.Event(), threading.Event()

    def stay() -> None:
        kept["inside"].set()
        kept["leave"].wait(60)

    def enter() -> None:
        go.wait(60)
        context.run(stay)

    kept["thread"] = threading.Thread(target=enter)
    kept["thread"].start()
    # When the request, and the step that its Task ends in, are over.
    asyncio.get_running_loop().call_later(0.01, go.set)


@check
async def thread_in_the_context_of_a_request_stops_nobody__2() -> None:
    await asyncio.to_thread(kept["inside"].wait, 60)


@check
async def thread_in_the_context_of_a_request_stops_nobody__3() -> None:
    """Which would be a 500 if it had to enter that context."""
    kept["leave"].set()
    await asyncio.to_thread(kept["thread"].join)


@check
async def task_in_a_set_is_not_the_next_one() -> None:
    kept["tasks"] = {this_task()}


@check
async def task_in_a_set_is_not_the_next_one__2() -> None:
    assert this_task() not in kept["tasks"]


def touch(how: str) -> None:
    """A Task that waits for a request, if the server has such: any other request may see it."""
    for task in asyncio.all_tasks():
        coro: Any = task.get_coro()
        if task is this_task() or "ppserver worker" not in repr(coro):
            continue
        if how == "mark":
            task.user = "alice"  # type: ignore[attr-defined]
        elif how == "rename":
            task.set_name("alice")
        elif how == "keep":
            kept.setdefault("kept idle", set()).add(task)
        elif how == "watch":
            task.add_done_callback(kept.setdefault("ended", []).append)
        elif how == "cancel":
            task.cancel("alice")
        elif how == "set its variable":
            context = getattr(task, "get_context", contextvars.copy_context)()
            context.run(var.set, "alice")
        elif how == "cancel what it waits for":
            task._fut_waiter.cancel()  # type: ignore[attr-defined]
        elif how == "wake":
            task._fut_waiter.set_result(None)  # type: ignore[attr-defined]
        elif how == "close":
            coro.close()
        elif how == "throw":
            with contextlib.suppress(RuntimeError):
                coro.throw(RuntimeError("alice"))
        else:
            assert how == "send"
            with contextlib.suppress(StopIteration):
                coro.send(None)
                coro.send(None)


async def touch_others(how: str) -> None:
    """Once somebody else says so, who has been answered without suspending."""
    go = kept["go"] = asyncio.Event()
    await go.wait()
    touch(how)
