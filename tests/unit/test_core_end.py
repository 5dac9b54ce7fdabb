"""How a core ends: with many requests in flight, and without `close()`."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from typing import Any

import pytest
import serving

from ppserver._native import Core

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
MANY = 300  # More than a batch.


def new_loop(core: Core, how: str) -> asyncio.AbstractEventLoop:
    if how == "asyncio":
        return asyncio.SelectorEventLoop(core.selector())
    serving.require("uvloop")
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    core.attach(loop)
    return loop


@pytest.mark.parametrize("how", ["asyncio", "uvloop"])
@pytest.mark.parametrize("stop", [False, True])
def test_more_requests_than_a_batch_hear_of_the_end(how: str, stop: bool) -> None:
    told: list[str] = []
    waiting = asyncio.Event()
    begun = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        assert scope["client"]
        begun += 1
        if begun == MANY:
            waiting.set()
        while (message := await receive())["type"] != "http.disconnect":
            pass
        told.append(message["type"])

    async def ends() -> None:
        while len(told) < MANY:  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0)

    core = Core()
    with socket.create_server(("127.0.0.1", 0), backlog=MANY) as listener:
        listener.setblocking(False)
        loop = new_loop(core, how)
        core.serve_asgi(app, loop, on_error=lambda exc, scope: None)
        core.add_listener(listener.fileno())
        clients = [socket.create_connection(listener.getsockname()) for _ in range(MANY)]
        for client in clients:
            client.sendall(REQUEST)
        loop.run_until_complete(asyncio.wait_for(waiting.wait(), 60))
        if stop:
            core.stop()
            assert core.in_flight == 0
        if how == "uvloop":
            core.detach()
            core.close()
            loop.run_until_complete(asyncio.wait_for(ends(), 60))
        else:
            core.close()
        loop.close()
    for client in clients:
        client.close()


def test_a_borrowed_body_is_given_back_without_close() -> None:
    body = b"x" * 50_000_000
    before = sys.getrefcount(body)
    asked = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
        asked = True

    async def until_asked() -> None:
        while not asked:  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0)

    core = Core()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.SelectorEventLoop(core.selector())
        core.serve_asgi(app, loop)
        core.add_listener(listener.fileno())
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(REQUEST)
            loop.run_until_complete(asyncio.wait_for(until_asked(), 60))
            assert sys.getrefcount(body) > before
            loop.close()
            del core, loop, app
            gc.collect()
            assert sys.getrefcount(body) == before
