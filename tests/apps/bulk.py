"""A bare application for clients that move a lot: streams both ways, many at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]

BLOCK = bytes(range(256)) * 1024  # 256 KB


async def reply(send: Send, value: Any) -> None:
    data = json.dumps(value).encode()
    headers = [(b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def download(scope: Scope, receive: Receive, send: Send) -> None:
    """As many blocks as asked for, with the length told in advance or without."""
    count = int(scope["query_string"])
    headers = []
    if scope["path"] == "/download":
        headers.append((b"content-length", str(count * len(BLOCK)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(count):
        more = number + 1 < count
        await send({"type": "http.response.body", "body": BLOCK, "more_body": more})


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Counts; with a digest when asked."""
    total, largest = 0, 0
    digest = hashlib.sha256() if scope["query_string"] else None
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        size = len(message["body"])
        total, largest = total + size, max(largest, size)
        if digest is not None:
            digest.update(message["body"])
        more = message["more_body"]
    await reply(
        send,
        {"total": total, "largest": largest, "sha256": digest.hexdigest() if digest else None},
    )


async def hold_upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes the first part of a body and no more of it for a while."""
    first = await receive()
    await asyncio.sleep(float(scope["query_string"]))
    total, more = len(first["body"]), first["more_body"]
    while more:
        message = await receive()
        total, more = total + len(message["body"]), message["more_body"]
    await reply(send, total)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Both ways at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.001)
    sizes = [len(name) + len(value) for name, value in scope["headers"]]
    await reply(
        send,
        {
            "path": scope["path"],
            "client": scope["client"][1],
            "headers": len(sizes),
            "bytes": sum(sizes),
        },
    )


HANDLERS = {
    "/download": download,
    "/download/chunked": download,
    "/upload": upload,
    "/hold-upload": hold_upload,
    "/echo": echo,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await HANDLERS.get(scope["path"], show)(scope, receive, send)
