"""The ASGI application around the checks."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from support import EXPECTED

from battery import (
    awaitables,
    callbacks,
    cancellation,
    driven,
    identity,
    loops,
    structure,
    traces,
    variables,
    with_anyio,
    with_asgiref,
)
from battery.core import (
    CHECKS,
    UNEXPECTED,
    NotHereError,
    kept,
    this_task,
    var,
)

# Importing a group registers its checks.
GROUPS = (
    awaitables,
    callbacks,
    cancellation,
    driven,
    identity,
    loops,
    structure,
    traces,
    variables,
    with_anyio,
    with_asgiref,
)


class Meeting:
    """Waits until the expected number of requests are inside."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.full = asyncio.Event()

    async def enter(self, count: int) -> None:
        self.tasks.append(this_task())
        if len(self.tasks) == count:
            self.full.set()
        await self.full.wait()


async def meet(name: str, count: int, number: str) -> None:
    meeting = kept.setdefault(f"meeting {name}", Meeting())
    me = this_task()
    var.set(number)
    await meeting.enter(count)
    assert this_task() is me
    assert var.get() == number
    assert len(set(meeting.tasks)) == count, "two requests at once share a task"
    assert all(task in asyncio.all_tasks() for task in meeting.tasks if not task.done())


async def hand_over(role: str) -> str:
    """A queue and a lock between requests."""
    queue: asyncio.Queue[str] = kept.setdefault("queue", asyncio.Queue())
    lock: asyncio.Lock = kept.setdefault("shared lock", asyncio.Lock())
    if role == "get":
        return await asyncio.wait_for(queue.get(), 10)
    async with lock:
        await asyncio.sleep(0.001)
        queue.put_nowait("item")
    return "put"


async def count_tasks() -> str:
    gc.collect()
    await asyncio.sleep(0)
    return str(len(asyncio.all_tasks()))


async def pristine() -> None:
    """What every request may take for granted, whatever the one before did."""
    task = this_task()
    assert task.cancelling() == 0
    assert not task.done()
    assert task not in kept.get("kept idle", ())
    assert not hasattr(task, "user")
    assert task.get_name() != "alice"
    assert var.get() == "unset"
    assert sys.exc_info() == (None, None, None)
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
    assert this_task() is task
    with anyio.CancelScope() as scope:
        await anyio.lowlevel.checkpoint()
    assert not scope.cancelled_caught


async def dispatch(path: str) -> str:
    kind, *parts = path.strip("/").split("/")
    if kind == "check":
        name, step = parts
        await CHECKS[name][int(step)]()
    elif kind == "pristine":
        await pristine()
    elif kind == "meet":
        name, count, number = parts
        await meet(name, int(count), number)
    elif kind == "hand-over":
        return await hand_over(parts[0])
    elif kind == "tasks":
        return await count_tasks()
    elif kind == "sleep":
        await asyncio.sleep(0.001)
    elif kind == "plain":
        pass
    elif kind == "touch-others":
        await traces.touch_others(parts[0])
    elif kind == "name":
        return this_task().get_name()
    elif kind == "is-there":
        return str("go" in kept)
    elif kind == "go":
        # Whoever waits goes on when this is over: its Task is waiting for a request by then.
        asyncio.get_running_loop().call_later(0.002, kept.pop("go").set)
    elif kind == "unexpected":
        return json.dumps(UNEXPECTED)
    else:
        raise AssertionError(f"no such path: {path}")
    return "ok"


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    text = f"{context.get('message')}: {context.get('exception')!r}"
    if EXPECTED not in text:
        UNEXPECTED.append(text)
        loop.default_exception_handler(context)


async def lifespan(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            asyncio.get_running_loop().set_exception_handler(on_loop_error)
            if os.environ.get("BATTERY_COLLECTS"):
                gc.set_threshold(10, 1, 1)  # the collector visits everything all the time
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    status = 200
    kept["scope"] = scope
    try:
        text = await dispatch(scope["path"])
    except NotHereError as exc:
        status, text = 204, str(exc)
    except BaseException:
        status, text = 418, traceback.format_exc()
    finally:
        kept.pop("scope", None)
    if status == 204:
        headers, body = [(b"x-note", text.encode())], b""
    else:
        body = text.encode()
        headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
