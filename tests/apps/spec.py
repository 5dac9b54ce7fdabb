"""A bare ASGI application: shows what the server gave, and sends what it is told to.

The path chooses the handler (`HANDLERS`); what must outlive the request goes to the record.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from support import EXPECTED, ExpectedError, record

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[Any]]

HANDLERS: dict[str, Handler] = {}
# Requests that wait for another one on the same context.
waiting: dict[str, asyncio.Event] = {}


def handles(path: str) -> Callable[[Handler], Handler]:
    def register(function: Handler) -> Handler:
        HANDLERS[path] = function
        return function

    return register


def describe(value: Any) -> Any:
    """JSON that keeps the type of everything in a scope or message."""
    if isinstance(value, dict):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return f"bytes:{value.decode('latin-1')}"
    if isinstance(value, str):
        return f"str:{value}"
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return f"{type(value).__name__}:{value}"


def start(status: Any = 200, *headers: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: Any = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def length(number: int) -> tuple[bytes, bytes]:
    return b"content-length", str(number).encode()


async def reply(send: Send, value: Any, status: int = 200) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    await send(start(status, (b"content-type", b"application/json"), length(len(data))))
    await send(body(data))


async def read_all(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


@handles("/scope")
async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    shown = {key: describe(value) for key, value in scope.items() if key != "state"}
    kinds = {key: type(value).__name__ for key, value in scope.items()}
    await reply(send, {"scope": shown, "kinds": kinds, "keys": sorted(scope)})


@handles("/state")
async def show_state(scope: Scope, receive: Receive, send: Send) -> None:
    """Each request has a copy of the dictionary, and shares what is in it."""
    state = scope["state"]
    seen = dict(state)
    state["own"] = "mine"
    state["shared"].append(len(state["shared"]))
    await reply(send, {key: value for key, value in seen.items() if key != "loop"})


@handles("/echo")
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send, await read_all(receive))


@handles("/messages")
async def messages(scope: Scope, receive: Receive, send: Send) -> None:
    seen = []
    while True:
        message = await receive()
        seen.append({**message, "body": len(message["body"])})
        assert isinstance(message["body"], bytes)
        if not message["more_body"]:
            break
    await reply(send, seen)


@handles("/duplex")
async def duplex(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers every part of the body before it asks for the next one."""
    await send(start())
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        if message["body"]:
            await send(body(message["body"], True))
    await send(body())


@handles("/stream")
async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    count = int(scope["query_string"] or 3)
    await send(start())
    for number in range(count):
        await send(body(b"part %d;" % number, True))
    await send(body())


@handles("/stream-with-length")
async def stream_with_length(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, length(10)))
    await send(body(b"01234", True))
    await send(body(b"56789", False))


@handles("/step")
async def step_by_step(scope: Scope, receive: Receive, send: Send) -> None:
    """A part leaves at once, though nothing follows it until /release."""
    event = waiting["step"] = asyncio.Event()
    await send(start())
    await send(body(b"first", True))
    await event.wait()
    await send(body(b"second"))


@handles("/release")
async def release(scope: Scope, receive: Receive, send: Send) -> None:
    waiting.pop(scope["query_string"].decode()).set()
    await reply(send, "released")


@handles("/bytes-like")
async def bytes_like(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(bytearray(b"bytearray "), True))
    await send(body(memoryview(b"memoryview"), False))


@handles("/defaults")
async def defaults(scope: Scope, receive: Receive, send: Send) -> None:
    """Keys with a default may be left out."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


@handles("/header-iterables")
async def header_iterables(scope: Scope, receive: Receive, send: Send) -> None:
    pairs = ([b"x-%d" % n, b"value"] for n in range(3))
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send(body(b"ok"))


@handles("/status")
async def any_status(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the status asked for, with a body whether it may have one or not."""
    await send(start(int(scope["query_string"]), (b"x-kept", b"yes")))
    await send(body(b"some body"))


@handles("/status-with-length")
async def status_with_length(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(int(scope["query_string"]), length(9)))
    await send(body(b"some body"))


@handles("/empty")
async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(int(scope["query_string"] or 200)))
    await send(body())


@handles("/close")
async def close(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"connection", b"close"), length(3)))
    await send(body(b"bye"))


@handles("/own-headers")
async def own_headers(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [
        (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (b"server", b"its own"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-bytes", bytes(range(0xA0, 0x100))),
        (b"X-Case", b"Kept"),
        (b"x-empty", b""),
    ]
    await send(start(200, *headers, length(2)))
    await send(body(b"ok"))


# --- the end of a request -----------------------------------------------------------------------


@handles("/background")
async def background(scope: Scope, receive: Receive, send: Send) -> None:
    name = scope["query_string"].decode()
    event = waiting[name] = asyncio.Event()
    await reply(send, "answered")
    await event.wait()
    record(f"background {name} done")


@handles("/receive-after-response")
async def receive_after_response(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send, "answered")
    message = await receive()
    while message["type"] == "http.request":
        message = await receive()
    again = await receive()
    record(f"after the response: {message['type']} {again['type']}")


@handles("/wait-for-disconnect")
async def wait_for_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    await read_all(receive)
    record("waiting")
    message = await receive()
    record(f"received {message['type']}")
    again = await receive()
    record(f"again {again['type']}")
    for attempt in (start(), body(b"too late")):
        try:
            await send(attempt)
            record("sent nowhere")
        except OSError as exc:
            record(f"send raised OSError: {bool(str(exc))}")


@handles("/fails-after-disconnect")
async def fails_after_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    record(f"about to fail: {scope['query_string'].decode()}")
    while (await receive())["type"] != "http.disconnect":
        pass
    if scope["query_string"] == b"cancelled":
        raise asyncio.CancelledError(EXPECTED)
    try:
        while True:
            await send(body(b"x" * 65536, True))
    except OSError as error:
        raise ExpectedError("handling") from error


@handles("/head-first")
async def head_first(scope: Scope, receive: Receive, send: Send) -> None:
    """Its first piece waits for the client, which waits for the head."""
    kind, mark = scope["query_string"].decode().split("&")
    if kind == "late":
        await asyncio.sleep(0)
    await send(start())
    if kind == "fails":
        await asyncio.sleep(0)
        raise ExpectedError("before the head was sent")
    event = opened.setdefault(mark, asyncio.Event())
    await event.wait()
    await send(body(b"piece"))


opened: dict[str, asyncio.Event] = {}


@handles("/open")
async def open_event(scope: Scope, receive: Receive, send: Send) -> None:
    opened[scope["query_string"].decode()].set()
    await reply(send, "opened")


@handles("/deaf")
async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins to send when the client has gone, and does not look any more."""
    size, mark = scope["query_string"].decode().split("&")
    record(f"{mark} begins")
    while (await receive())["type"] != "http.disconnect":
        pass
    await send(start())
    sent = 0
    try:
        while True:
            await send(body(b"x" * int(size), True))
            sent += 1
    except OSError:
        record(f"{mark}: OSError after {sent + (int(size) == 0)} pieces")


@handles("/disconnect-while-streaming")
async def disconnect_while_streaming(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends until the client has gone; only an OSError ends it."""
    await read_all(receive)
    await send(start())
    record("streaming")
    try:
        while True:
            await send(body(b"x" * 65536, True))
            await asyncio.sleep(0)
    except OSError:
        record("stream ended by OSError")
    message = await receive()
    record(f"then {message['type']}")


@handles("/not-cancelled")
async def not_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    """A disconnect tells, it does not cancel."""
    record("working")
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
        for _ in range(5):
            await asyncio.sleep(0.001)
    except asyncio.CancelledError:
        record("cancelled")
        raise
    record("work finished")


@handles("/upload-cut")
async def upload_cut(scope: Scope, receive: Receive, send: Send) -> None:
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            record("upload cut")
            return
        if not total:
            record("upload started")
        total += len(message["body"])


@handles("/flow")
async def flow(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams 64 MB and records how far it came while nobody reads."""
    await send(start())
    for number in range(1024):
        if number:
            record(str(number), "flow")
        await send(body(b"x" * 65536, True))
    await send(body())
    record("complete", "flow")


@handles("/unread")
async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without a look at the body."""
    await reply(send, "not read")


# --- applications that fail ---------------------------------------------------------------------


@handles("/raise")
async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ExpectedError("before the start")


@handles("/raise-later")
async def raises_later(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.001)
    raise ExpectedError("before the start, after a suspension")


@handles("/raise-after-start")
async def raises_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, length(100)))
    raise ExpectedError("after the start")


@handles("/raise-after-part")
async def raises_after_part(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))
    await send(body(b"part", True))
    await asyncio.sleep(0)
    raise ExpectedError("after a part")


@handles("/raise-after-end")
async def raises_after_end(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send, "complete")
    raise ExpectedError("after the end")


@handles("/raise-cancelled")
async def raises_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


@handles("/raise-base")
async def raises_base(scope: Scope, receive: Receive, send: Send) -> None:
    class ExpectedBaseError(BaseException):
        pass

    raise ExpectedBaseError("expected by the test")


@handles("/raise-exit")
async def raises_exit(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit("expected by the test")


@handles("/raise-exit-later")
async def raises_exit_later(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.001)
    raise SystemExit("expected by the test")


@handles("/raise-interrupt")
async def raises_interrupt(scope: Scope, receive: Receive, send: Send) -> None:
    raise KeyboardInterrupt("expected by the test")


@handles("/raise-group")
async def raises_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises_later(scope, receive, send))
        group.create_task(raises_later(scope, receive, send))


@handles("/nothing")
async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@handles("/only-start")
async def only_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))


@handles("/unfinished")
async def unfinished(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))
    await send(body(b"part", True))


@handles("/too-long")
async def too_long(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, length(5)))
    await send(body(b"123456789"))


@handles("/first-part-too-long")
async def first_part_too_long(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, length(5)))
    await send(body(b"123456789", True))


@handles("/too-long-in-parts")
async def too_long_in_parts(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, length(5)))
    await send(body(b"123", True))
    await send(body(b"456", False))


@handles("/too-short")
async def too_short(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, length(50)))
    await send(body(b"12345"))


@handles("/returns-value")
async def returns_value(scope: Scope, receive: Receive, send: Send) -> Any:
    await reply(send, "ok")
    return {"nobody": "reads this"}


# Messages that `send` must refuse, as functions of nothing: what goes before, then the culprit.
BAD: dict[str, tuple[list[Any], Any]] = {
    "none": ([], None),
    "list": ([], [1]),
    "string": ([], "http.response.start"),
    "no-type": ([], {"status": 200}),
    "type-not-str": ([], {"type": 3}),
    "unknown-type": ([], {"type": "http.response.nonsense"}),
    "websocket-type": ([], {"type": "websocket.accept"}),
    "request-type": ([], {"type": "http.request", "body": b""}),
    "body-before-start": ([], body(b"x")),
    "start-without-status": ([], {"type": "http.response.start", "headers": []}),
    "status-str": ([], start("200")),
    "status-none": ([], start(None)),
    "status-float": ([], start(200.0)),
    "status-too-small": ([], start(99)),
    "status-too-large": ([], start(1000)),
    "status-negative": ([], start(-200)),
    "status-huge": ([], start(1 << 70)),
    "status-informational": ([], start(103)),
    "headers-int": ([], {"type": "http.response.start", "status": 200, "headers": 7}),
    "headers-none": ([], {"type": "http.response.start", "status": 200, "headers": None}),
    "header-int": ([], start(200, 5)),
    "header-triple": ([], start(200, (b"a", b"b", b"c"))),
    "header-single": ([], start(200, (b"a",))),
    "header-name-str": ([], start(200, ("x-name", b"value"))),
    "header-value-str": ([], start(200, (b"x-name", "value"))),
    "header-value-int": ([], start(200, (b"x-name", 5))),
    "header-name-empty": ([], start(200, (b"", b"value"))),
    "header-name-space": ([], start(200, (b"x name", b"value"))),
    "header-name-colon": ([], start(200, (b"x:name", b"value"))),
    "header-name-newline": ([], start(200, (b"x\r\nname", b"value"))),
    "header-name-nul": ([], start(200, (b"x\0name", b"value"))),
    "header-name-latin": ([], start(200, (b"x\xe9", b"value"))),
    "header-value-crlf": ([], start(200, (b"x-name", b"a\r\nset-cookie: evil=1"))),
    "header-value-cr": ([], start(200, (b"x-name", b"a\rb"))),
    "header-value-lf": ([], start(200, (b"x-name", b"a\nb"))),
    "header-value-nul": ([], start(200, (b"x-name", b"a\0b"))),
    "header-value-control": ([], start(200, (b"x-name", b"a\x01b"))),
    "length-not-digits": ([], start(200, (b"content-length", b"five"))),
    "length-negative": ([], start(200, (b"content-length", b"-5"))),
    "length-huge": ([], start(200, (b"content-length", b"9" * 40))),
    "lengths-differ": ([], start(200, length(5), length(6))),
    "body-str": ([start()], body("text")),
    "body-int": ([start()], body(3)),
    "second-start": ([start()], start()),
    "start-after-part": ([start(), body(b"x", True)], start()),
    "start-after-end": ([start(200, length(2)), body(b"ok")], start()),
    "body-after-end": ([start(200, length(2)), body(b"ok")], body(b"more")),
}


@handles("/bad")
async def bad(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends nonsense, records what `send` raised, and then answers properly if it still can."""
    name = scope["query_string"].decode()
    before, culprit = BAD[name]
    for message in before:
        await send(message)
    try:
        await send(culprit)
        if not before:
            # The head leaves with the first body and may be looked at as late as that.
            await send(body(b""))
    except Exception as exc:
        answer = {"type": type(exc).__name__, "os_error": isinstance(exc, OSError)}
        answer["message"] = str(exc)
    else:
        answer = {"type": None}
    record(json.dumps({name: answer}))
    if not before:
        if answer["type"] is not None:
            await reply(send, answer)
    elif before[-1]["type"] == "http.response.start" or before[-1]["more_body"]:
        await send(body(json.dumps(answer).encode()))


@handles("/raise-bad")
async def raise_bad(scope: Scope, receive: Receive, send: Send) -> None:
    """The same without catching what `send` raises."""
    before, culprit = BAD[scope["query_string"].decode()]
    for message in before:
        await send(message)
    await send(culprit)
    await send(body(b""))


async def http(scope: Scope, receive: Receive, send: Send) -> Any:
    handler = HANDLERS.get(scope["path"], show_scope)
    return await handler(scope, receive, send)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    loop = asyncio.get_running_loop()
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"].update({"shared": [], "name": "from the lifespan", "loop": loop})
    record("startup")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    record("shutdown")
    assert asyncio.get_running_loop() is loop
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Scope, receive: Receive, send: Send) -> Any:
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    return await http(scope, receive, send)
