"""An ASGI application for tests of leaks: many kinds of requests, and figures about itself."""

from __future__ import annotations

import asyncio
import gc
import json
import pathlib
import sys
import urllib.parse
from typing import Any

from starlette.applications import Starlette
from support import ExpectedError

from ppserver import _native

starlette = Starlette()


def anonymous_bytes() -> int:
    """Memory that is this process's own: neither files nor shared."""
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("smaps_rollup has no line for anonymous memory")


def figures() -> dict[str, int]:
    for _ in range(3):
        gc.collect()
    own = {
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "tasks": len(asyncio.all_tasks()),
        "anonymous_bytes": anonymous_bytes(),
    }
    return {**own, **{f"native_{name}": value for name, value in _native.memory().items()}}


async def crowd() -> None:
    """As many callbacks and timers at once as a burst may bring.

    uvloop keeps the memory of up to 250 dead handles of either kind, so what it keeps is as much as
    the greatest burst so far needed.
    """
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        loop.call_soon(int)
        loop.call_later(0.001, int)
    await asyncio.sleep(0.01)


async def answer(send: Any, data: bytes, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/hello":
        await answer(send, b"hello")
    elif path == "/echo":
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        await answer(send, b"".join(parts))
    elif path == "/later":
        await asyncio.sleep(0)
        await answer(send, b"later")
    elif path == "/timer":
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
        await answer(send, b"timer")
    elif path == "/stream":
        await answer(send, b"part", True)
        for _ in range(5):
            await send({"type": "http.response.body", "body": b"part" * 100, "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/endless":
        await answer(send, b"", True)
        while True:
            await send({"type": "http.response.body", "body": b"x" * 20000, "more_body": True})
    elif path == "/waits":
        await receive()
        await receive()
    elif path == "/raises":
        raise ExpectedError
    elif path == "/raises-later":
        await answer(send, b"half", True)
        await asyncio.sleep(0)
        raise ExpectedError
    elif path == "/crowd":
        await crowd()
        await answer(send, b"gone")
    elif path == "/figures":
        await answer(send, json.dumps(figures()).encode())
    elif path == "/no-memory":
        import _testcapi

        query = dict(urllib.parse.parse_qsl(scope["query_string"].decode()))
        await answer(send, b"armed")
        asyncio.get_running_loop().call_soon(
            _testcapi.set_nomemory, int(query["start"]), int(query["stop"])
        )
    else:
        await starlette(scope, receive, send)
