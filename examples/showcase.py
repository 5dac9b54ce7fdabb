"""A page that shows what the server does: which context answers, streaming, uploads, waiting.

    ppserver examples.showcase:app --cores all

Plain ASGI, nothing but the standard library. Open the printed address in a browser.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE = Path(__file__).with_name("showcase.html")
LOADED = time.time()
LOADED_BY = os.getpid()

answered = 0


async def respond(
    send: Send,
    body: bytes,
    content_type: bytes = b"application/json",
    status: int = 200,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def who() -> dict[str, Any]:
    """What tells this context from the others."""
    return {"pid": os.getpid(), "answered": answered, "started": STARTED.get(os.getpid(), LOADED)}


STARTED: dict[int, float] = {}


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, PAGE.read_bytes(), b"text/html; charset=utf-8")


async def about(scope: Scope, receive: Receive, send: Send) -> None:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    facts = {
        "python": platform.python_version() + ("" if gil else ", free-threaded"),
        "cores": len(os.sched_getaffinity(0)),
        "loop": type(asyncio.get_running_loop()).__module__.split(".")[0],
        "loader": LOADED_BY if os.getpid() != LOADED_BY else os.getppid(),
        "http": scope["http_version"],
        "client": scope.get("client"),
    }
    await respond(send, json.dumps(facts).encode())


async def ask(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes the connection, so that the next question may reach another context."""
    await respond(send, json.dumps(who()).encode(), headers=((b"connection", b"close"),))


async def work(scope: Scope, receive: Receive, send: Send) -> None:
    """Keeps one core busy for a moment."""
    began = time.perf_counter()
    digest = b"ppserver"
    rounds = 0
    while time.perf_counter() - began < 0.15:
        for _ in range(500):
            digest = hashlib.blake2b(digest).digest()
        rounds += 500
    answer = {**who(), "rounds": rounds, "digest": digest.hex()[:16]}
    await respond(send, json.dumps(answer).encode(), headers=((b"connection", b"close"),))


async def wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits a second; a context serves many of these at once."""
    await asyncio.sleep(1)
    await respond(send, json.dumps(who()).encode())


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Forty numbered lines, one every 50 ms, each sent when it is made."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
    )
    for number in range(1, 41):
        line = f"line {number:2d} of 40 from context {os.getpid()}\n"
        await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body"})


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Counts and digests what is sent, piece by piece."""
    digest = hashlib.sha256()
    total = pieces = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body = message.get("body", b"")
        digest.update(body)
        total += len(body)
        pieces += 1
        if not message.get("more_body", False):
            break
    answer = {"bytes": total, "pieces": pieces, "sha256": digest.hexdigest()}
    await respond(send, json.dumps(answer).encode())


async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    def plain(value: object) -> object:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)

    await respond(send, json.dumps(plain(dict(scope)), indent=2).encode())


ROUTES = {
    "/": page,
    "/about": about,
    "/ask": ask,
    "/work": work,
    "/wait": wait,
    "/stream": stream,
    "/upload": upload,
    "/scope": show_scope,
}


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            STARTED[os.getpid()] = time.time()
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    global answered
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    answered += 1
    handler = ROUTES.get(scope["path"])
    if handler is None:
        await respond(send, b"There is no such page.\n", b"text/plain; charset=utf-8", 404)
    else:
        await handler(scope, receive, send)
