"""Requests that wait, and what asyncio says of their Tasks: for tests of introspection."""

from __future__ import annotations

import asyncio
from typing import Any

from support import record


class Waiting:
    """What is kept between requests."""

    release: asyncio.Event
    task: asyncio.Task[Any]


async def wait_inside() -> None:
    record("waiting")
    await Waiting.release.wait()


async def wait_in_a_task() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_inside(), name="child of a request")


async def answer(path: str) -> str:
    if path in ("/wait", "/group"):
        Waiting.release = asyncio.Event()
        task = asyncio.current_task()
        assert task is not None
        Waiting.task = task
        await (wait_inside() if path == "/wait" else wait_in_a_task())
    elif path == "/graph":
        return asyncio.format_call_graph(Waiting.task)  # type: ignore[attr-defined,no-any-return]
    elif path == "/release":
        Waiting.release.set()
    return "ok"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    text = await answer(scope["path"])
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
