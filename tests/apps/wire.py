"""A bare ASGI application for tests of the wire, of limits and of faults.

The first part of the path chooses the handler. Every request is recorded by its target before
anything else happens, so that a test can tell what was processed and what was not.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

from support import ExpectedError, record

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send, dict[str, str]], Awaitable[None]]

HANDLERS: dict[str, Handler] = {}
gates: dict[str, asyncio.Event] = {}


def handler(function: Handler) -> Handler:
    HANDLERS[function.__name__] = function
    return function


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = dict(urllib.parse.parse_qsl(scope["query_string"].decode("latin-1")))
    record(f"{scope['method']} {scope['path']} {query.get('id', '-')}")
    name = scope["path"].strip("/").split("/")[0]
    await HANDLERS.get(name, hello)(scope, receive, send, query)


async def start(send: Send, status: Any = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send: Send, data: Any = b"", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def whole_body(receive: Receive) -> bytes | None:
    """None when the client went away or made a mistake."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


@handler
async def hello(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Answers without suspending and without reading."""
    await start(send, 200, [(b"content-type", b"text/plain"), (b"x-first", b"1"), (b"X-2nd", b"2")])
    await body(send, f"hello {query.get('id', '-')}".encode())


@handler
async def pid(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Which process serves this connection."""
    await start(send)
    await body(send, b"%d" % os.getpid())


@handler
async def later(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Suspends before and in the middle of its answer."""
    await asyncio.sleep(float(query.get("seconds", "0")))
    await start(send)
    await asyncio.sleep(0)
    await body(send, b"later ", True)
    await asyncio.sleep(0)
    await body(send, query.get("id", "-").encode())


@handler
async def scope(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    shown = {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "version": scope["http_version"],
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
    }
    await start(send)
    await body(send, json.dumps(shown).encode())


@handler
async def echo(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Reads the body, then sends it back; lets the server answer for a broken one."""
    data = await whole_body(receive)
    if data is None:
        record("disconnect in /echo")
        return
    await start(send)
    await body(send, data)


@handler
async def count(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    total, pieces, most = 0, 0, 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            record("disconnect in /count")
            return
        total += len(message["body"])
        most = max(most, len(message["body"]))
        pieces += 1
        if not message["more_body"]:
            break
    await start(send)
    await body(send, json.dumps({"total": total, "pieces": pieces, "most": most}).encode())


@handler
async def some(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Reads one piece of the body and answers without the rest."""
    await receive()
    await start(send)
    await body(send, b"enough")


@handler
async def big(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """``bytes`` in pieces of ``piece``, without reading; notes how far it got."""
    total, piece = int(query["bytes"]), int(query.get("piece", "65536"))
    await start(send, 200, [(b"content-length", b"%d" % total)])
    sent = 0
    data = b"x" * piece
    try:
        while True:
            part = data[: total - sent]
            sent += len(part)
            await body(send, part, sent < total)
            if "id" in query:
                record(f"sent {sent}", f"sent-{query['id']}")
            if sent == total:
                break
    except OSError as error:
        record(f"OSError in /big: {type(error).__name__}")
        raise


@handler
async def endless(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    await start(send)
    sent = 0
    try:
        while True:
            await body(send, b"y" * 16000, True)
            sent += 1
            if "slowly" in query:
                await asyncio.sleep(0.005)
    except OSError:
        record("OSError in /endless")
        raise


@handler
async def status(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    await start(send, int(query["status"]))
    await body(send, query.get("body", "").encode(), "stream" in query)
    if "stream" in query:
        await body(send, b"more")


@handler
async def header(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """A response with one header of the client's choice; percent-encoded latin-1."""
    text = scope["query_string"].decode("latin-1")
    raw = dict(urllib.parse.parse_qsl(text, keep_blank_values=True, encoding="latin-1"))
    name, value = raw["name"].encode("latin-1"), raw["value"].encode("latin-1")
    await start(send, 200, [(b"x-before", b"1"), (name, value), (b"x-after", b"2")])
    if "stream" in raw:
        await body(send, b"part", True)
    await body(send, b"part")


@handler
async def raises(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    when = query.get("when", "before")
    if when == "suspended":
        await asyncio.sleep(0)
    if when in ("head", "middle", "end", "length"):
        await start(send, 200, [(b"content-length", b"100")] if when == "length" else [])
    if when in ("middle", "length"):
        await body(send, b"half", True)
        if "sleep" in query:
            await asyncio.sleep(0)
    if when == "end":
        await body(send, b"all")
    raise ExpectedError(when)


@handler
async def hangs(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Waits until somebody opens its gate."""
    if "started" in query:
        await start(send)
        await body(send, b"begun", True)
    record(f"waiting {query['id']}")
    await gate(query["id"]).wait()
    if "started" not in query:
        await start(send)
    await body(send, b"opened")


@handler
async def opens(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    gate(query["gate"]).set()
    await hello(scope, receive, send, query)


@handler
async def listens(scope: Scope, receive: Receive, send: Send, query: dict[str, str]) -> None:
    """Reads the body and then waits for the client to go away."""
    while True:
        message = await receive()
        record(f"{message['type']} {len(message.get('body', b''))} {query['id']}")
        if message["type"] == "http.disconnect":
            break
    await start(send)
    record(f"sent nowhere {query['id']}")
