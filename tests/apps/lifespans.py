"""Applications whose lifespan goes other ways than the usual one."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from support import ExpectedError, record

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer(scope: Scope, send: Send) -> None:
    text = f"state: {scope.get('state')}".encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(text)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": text})


def with_lifespan(lifespan: App) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            assert scope["type"] == "http"
            await answer(scope, send)

    return app


setting = contextvars.ContextVar("setting", default="nothing")
seen = contextvars.ContextVar("seen", default=0)


async def sets_variables(scope: Scope, receive: Receive, send: Send) -> None:
    """Start-up sets one; each request tells it, and sets both for itself."""
    if scope["type"] == "lifespan":
        await receive()
        setting.set("by lifespan, " + setting.get())
        await send({"type": "lifespan.startup.complete"})
        setting.set("too late")
        await receive()
        assert setting.get() == "too late"
        await send({"type": "lifespan.shutdown.complete"})
        return
    text = f"{setting.get()}, {seen.get()}".encode()
    setting.set("by a request")
    seen.set(seen.get() + 1)
    await asyncio.sleep(0)
    assert seen.get() == 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


def set_by_hook() -> None:
    setting.set("by a hook")


@with_lifespan
async def unsupported(scope: Scope, receive: Receive, send: Send) -> None:
    raise ExpectedError("no lifespan here")


@with_lifespan
async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Neither completes nor raises."""


@with_lifespan
async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


@with_lifespan
async def raises_at_startup(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise ExpectedError("startup")


@with_lifespan
async def fails_at_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record("shutdown asked")
    await send({"type": "lifespan.shutdown.failed", "message": "could not say goodbye"})


@with_lifespan
async def raises_at_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ExpectedError("shutdown")


@with_lifespan
async def ends_early(scope: Scope, receive: Receive, send: Send) -> None:
    """Completes the start-up and does not wait for the end."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


@with_lifespan
async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes a while at both ends, with a task and a timer of its own in between."""
    await receive()
    await asyncio.sleep(0.05)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    task = asyncio.create_task(tick())
    await send({"type": "lifespan.startup.complete"})
    record("started")
    await receive()
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.05)
    record(f"ticked {ticks > 0}")
    await send({"type": "lifespan.shutdown.complete"})


@with_lifespan
async def shows_scope(scope: Scope, receive: Receive, send: Send) -> None:
    record(f"keys {' '.join(sorted(scope))}")
    record(f"asgi {scope['asgi']['version']} {scope['asgi']['spec_version']}")
    record(f"message {await receive()}")
    await send({"type": "lifespan.startup.complete"})
    record(f"message {await receive()}")
    await send({"type": "lifespan.shutdown.complete"})


@with_lifespan
async def nonsense(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends what a lifespan may not send."""
    await receive()
    for message in (None, {"type": "lifespan.nonsense"}, {"type": "http.response.start"}):
        try:
            await send(message)
        except Exception as exc:
            record(f"refused {type(exc).__name__}")
        else:
            record("accepted")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
