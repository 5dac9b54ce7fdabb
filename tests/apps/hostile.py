"""An ASGI application that does to its server what nobody should do.

The path names the deed; `DEEDS` lists them all. ``/fuzz?seed`` sends what chance says.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import io
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hostile_tasks  # registers its deeds
from hostile_deeds import DEEDS, Receive, Scope, Send, body, deed, finish, hello, kept, start
from support import ExpectedError, record

__all__ = ["DEEDS", "app", "hostile_tasks"]


def app(scope: Scope, receive: Receive, send: Send) -> Any:
    if scope["type"] == "lifespan":
        return lifespan(scope, receive, send)
    return DEEDS[scope["path"].strip("/")](scope, receive, send)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


# ---- Python code that runs while send() looks at its message ----


class Truth:
    def __init__(self, run: Callable[[], object], value: bool = False) -> None:
        self.run, self.value = run, value

    def __bool__(self) -> bool:
        self.run()
        return self.value


class Buffer:
    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def __buffer__(self, flags: int) -> memoryview:
        self.run()
        return memoryview(b"buffer")


class Key(str):
    """Equal to the string it is made of, and does something when asked."""

    run: Callable[[], object] = staticmethod(lambda: None)

    def __eq__(self, other: object) -> bool:
        run, self.run = self.run, lambda: None
        run()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def key(text: str, run: Callable[[], object]) -> Key:
    made = Key(text)
    made.run = run
    return made


class Headers:
    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def __iter__(self) -> Iterator[Any]:
        yield (b"x-a", b"b")
        self.run()
        yield (b"x-c", b"d")


class Shown:
    """Something that is no header, and whose text is asked for to say so."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def __repr__(self) -> str:
        self.run()
        return "shown"


@deed
async def sends_while_asked_for_more(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"x", Truth(lambda: finish(send))))


@deed
async def sends_while_asked_for_more_later(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"first", True))
    await send(body(b"x", Truth(lambda: finish(send), True)))
    await send(body(b"y"))


@deed
async def sends_while_asked_for_trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**start(), "trailers": Truth(lambda: finish(send))})
    await send(body(b"x"))


@deed
async def sends_while_its_buffer_is_taken(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(Buffer(lambda: finish(send))))


@deed
async def sends_while_a_key_is_compared(scope: Scope, receive: Receive, send: Send) -> None:
    for name in ("more_body", "body", "type"):
        message = {"type": "http.response.body", "body": b"x", "more_body": True}
        value = message.pop(name)
        message[key(name, lambda: finish(send))] = value
        if name == "more_body":
            await send(start())
        await send(message)


@deed
async def sends_while_headers_are_read(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, Headers(lambda: finish(send))))
    await send(body(b"x"))


@deed
async def starts_while_headers_are_read(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, Headers(lambda: send(start(404, [(b"x-inner", b"1")])))))
    await send(body(b"x"))


@deed
async def sends_while_shown(scope: Scope, receive: Receive, send: Send) -> None:
    headers: list[Any] = [(b"x-a", b"b")]

    def run() -> None:
        headers.clear()
        gc.collect()
        finish(send)

    headers.append(Shown(run))
    headers.append((b"x-c", b"d"))
    await send(start(200, headers))


@deed
async def changes_headers_while_shown(scope: Scope, receive: Receive, send: Send) -> None:
    headers: list[Any] = [[b"x-%d" % n, b"y" * 1000] for n in range(100)]

    def run() -> None:
        headers.clear()
        gc.collect()

    headers[50] = [Shown(run), b"c", b"d"]
    await send(start(200, headers))


@deed
async def changes_headers_after_the_start(scope: Scope, receive: Receive, send: Send) -> None:
    headers: list[Any] = [(b"x-%d" % n, b"y" * 100) for n in range(60)]
    await send(start(200, headers))
    headers[:] = [(b"bad name", None), 5]
    gc.collect()
    await send(body(b"x"))


@deed
async def empties_headers_after_the_start(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [[b"x-a", b"b" * 1000] for _ in range(6)]
    await send(start(200, headers))
    for pair in headers:
        pair.clear()
    gc.collect()
    await send(body(b"x"))


@deed
async def empties_headers_of_a_tuple_after_the_start(
    scope: Scope, receive: Receive, send: Send
) -> None:
    headers = ((b"x-a", b"b" * 1000), [b"x-a", b"b" * 1000], [b"x-a", b"b" * 1000])
    await send(start(200, headers))
    for pair in headers[1:]:
        pair[1] = b"c"  # type: ignore[index]
    gc.collect()
    assert type(headers[2]) is list
    await send(body(b"x"))


@deed
async def changes_its_bytearray(scope: Scope, receive: Receive, send: Send) -> None:
    """What was sent is what it was at the time."""
    data = bytearray(b"a" * 100_000)
    await send(start())
    await send(body(data, True))
    data[:] = b"b" * 100_000
    view = memoryview(data)
    await send(body(view, True))
    view.release()
    data[:] = b"c" * 50_000
    data.extend(b"c" * 200_000)
    await send(body(b""))


# ---- receive and send where they do not belong ----


@deed
async def sends_from_a_thread(scope: Scope, receive: Receive, send: Send) -> None:
    def run() -> str:
        try:
            send(start())
            send(body(b"from a thread"))
        except Exception as error:
            return type(error).__name__
        return "accepted"

    result = await asyncio.to_thread(run)
    if result != "accepted":
        await send(start())
        await send(body(result.encode()))


@deed
async def receives_from_a_thread(scope: Scope, receive: Receive, send: Send) -> None:
    def run() -> str:
        try:
            return str(asyncio.run(waits(receive)))
        except Exception as error:
            return type(error).__name__

    result = await asyncio.to_thread(run)
    await send(start())
    await send(body(result.encode()))


async def waits(receive: Receive) -> list[Any]:
    return [await receive(), await asyncio.wait_for(receive(), 0.05)]


@deed
async def receives_by_hand(scope: Scope, receive: Receive, send: Send) -> None:
    waiting = receive()
    with contextlib.suppress(StopIteration):
        waiting.send(None)
    for _ in range(3):
        with contextlib.suppress(RuntimeError, StopIteration):
            waiting.send(None)
    again = receive()
    again.send(None)
    with contextlib.suppress(ValueError):
        again.throw(ValueError("by hand"))
    third = receive()
    third.send(None)
    third.close()
    fourth = receive()
    next(fourth.__await__())
    del fourth
    gc.collect()
    await hello(scope, receive, send)


class Answers:
    """Garbage that sends the whole response when it is collected."""

    def __init__(self, send: Send) -> None:
        self.itself, self.send = self, send

    def __del__(self) -> None:
        finish(self.send)


async def collecting(send: Send, waiting: Any) -> Any:
    """Start to wait, collecting as soon as anything is allocated; the message or the future."""
    thresholds = gc.get_threshold()
    gc.disable()
    keep: list[Any] = [{} for _ in range(200)]  # no dict, and no list, is left over
    keep += [[] for _ in range(200)]
    Answers(send)
    try:
        gc.set_threshold(1)
        gc.enable()
        return waiting.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        gc.set_threshold(*thresholds)
        gc.collect()
        del keep


@deed
async def is_answered_by_a_collection(scope: Scope, receive: Receive, send: Send) -> None:
    """While receive() makes its message, where an interpreter collects as it allocates."""
    message = await collecting(send, receive())
    assert message["type"] == "http.request", message


@deed
async def is_answered_as_it_begins_to_wait(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    got = await collecting(send, receive())
    told = got["type"] == "http.disconnect" if isinstance(got, dict) else got.done()
    record("told of the end" if told else "waits for nothing")


@deed
async def receives_many_times_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    tasks = [asyncio.ensure_future(receive()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    await send(start())
    await send(body(b"hello"))
    kinds = {str(result) for result in await asyncio.gather(*tasks, return_exceptions=True)}
    record(f"received {len(kinds)} kinds")


@deed
async def keeps_everything(scope: Scope, receive: Receive, send: Send) -> None:
    """And uses what belongs to requests long gone."""
    for old_receive, old_send in kept[-5:]:
        for message in (start(), body(b"old", True), body(b"old")):
            with contextlib.suppress(Exception):
                await old_send(message)
        await asyncio.wait_for(old_receive(), 1)
    kept.append((receive, send))
    await hello(scope, receive, send)


@deed
async def awaits_twice(scope: Scope, receive: Receive, send: Send) -> None:
    waiting = receive()
    await waiting
    try:
        await waiting
    except RuntimeError:
        record("awaiting twice is an error")
    sent = send(start())
    await sent
    await sent
    await send(body(b"hello"))


@deed
async def never_awaits(scope: Scope, receive: Receive, send: Send) -> None:
    for _ in range(100):
        receive()
    send(start())
    for _ in range(100):
        send(body(b"x" * 1000, True))
    send(body(b""))


@deed
async def ruins_its_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """What it changes is its own."""
    headers = scope["headers"]
    if isinstance(headers, list):
        headers.append((b"x-mine", b"1"))
    with contextlib.suppress(Exception):
        scope["asgi"]["version"] = "ruined"
    with contextlib.suppress(Exception):
        scope["extensions"]["ruined"] = {}
    scope["path"] = None
    scope.clear()
    gc.collect()
    await hello(scope, receive, send)


# ---- ways to end ----


def ends(name: str, make: Callable[[], BaseException]) -> None:
    async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
        raise make()

    async def later(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        raise make()

    async def halfway(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half", True))
        await asyncio.sleep(0)
        raise make()

    def called(scope: Scope, receive: Receive, send: Send) -> None:
        raise make()

    DEEDS[f"raises-{name}"] = at_once
    DEEDS[f"raises-{name}-later"] = later
    DEEDS[f"raises-{name}-halfway"] = halfway
    DEEDS[f"raises-{name}-called"] = called


class NoError(BaseException):
    """Not an Exception."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ExpectedError("cannot be shown")

    __repr__ = __str__


ends("exception", ExpectedError)
ends("base", lambda: NoError("expected by the test"))
ends("cancelled", asyncio.CancelledError)
ends("generator-exit", GeneratorExit)
ends("stop-async", lambda: StopAsyncIteration("expected by the test"))
ends("memory", MemoryError)
ends("recursion", RecursionError)
ends("os-error", lambda: OSError("expected by the test"))
ends("timeout", lambda: TimeoutError("expected by the test"))
ends("unprintable", UnprintableError)
ends("group", lambda: ExceptionGroup("expected by the test", [ExpectedError(), ValueError("x")]))


@deed
async def recurses(scope: Scope, receive: Receive, send: Send) -> None:
    await recurses(scope, receive, send)


@deed
async def is_not_a_response(scope: Scope, receive: Receive, send: Send) -> None:
    return


@deed
def is_not_a_coroutine(scope: Scope, receive: Receive, send: Send) -> Any:
    return 42


@deed
def is_nothing(scope: Scope, receive: Receive, send: Send) -> Any:
    return None


@deed
async def is_a_generator(scope: Scope, receive: Receive, send: Send) -> Any:
    yield 42


@deed
def is_a_list(scope: Scope, receive: Receive, send: Send) -> Any:
    return [1, 2, 3]


@deed
async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    threading.Event().wait(0.2)
    await hello(scope, receive, send)


@deed
async def forks(scope: Scope, receive: Receive, send: Send) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    os.waitpid(pid, 0)  # noqa: ASYNC222
    await hello(scope, receive, send)


@deed
async def leaves_a_task_behind(scope: Scope, receive: Receive, send: Send) -> None:
    async def later() -> None:
        for number in range(20):
            await asyncio.sleep(0)
            with contextlib.suppress(Exception):
                await send(start(200 + number))

    kept.append(asyncio.create_task(later()))
    await hello(scope, receive, send)


@deed
async def collects(scope: Scope, receive: Receive, send: Send) -> None:
    cycle: list[Any] = [scope, receive, send]
    cycle.append(cycle)
    del scope, receive
    gc.collect()
    send = cycle[2]
    del cycle
    gc.collect()
    await send(start())
    gc.collect()
    await send(body(b"hello"))


@deed
async def looks_at_everything(scope: Scope, receive: Receive, send: Send) -> None:
    """As debuggers do."""
    for thing in (receive, send, receive(), send(start()), asyncio.current_task()):
        repr(thing)
        for name in dir(thing):
            with contextlib.suppress(Exception):
                getattr(thing, name)
        gc.get_referents(thing)
        sys.getsizeof(thing)
        with contextlib.suppress(TypeError):
            type(thing)()
    task = asyncio.current_task()
    assert task is not None
    task.get_stack()
    task.print_stack(file=io.StringIO())
    await send(body(b"hello"))


# ---- chance ----


class Odd(dict):
    def __getitem__(self, name: Any) -> Any:
        raise ExpectedError("no items here")

    get = keys = items = __iter__ = __contains__ = __getitem__  # type: ignore[assignment]


def any_value(source: random.Random) -> Any:
    choices: list[Callable[[], Any]] = [
        lambda: None,
        lambda: source.choice([True, False]),
        lambda: source.choice(
            [0, 1, -1, 99, 100, 200, 204, 304, 500, 999, 1000, 2**31, 2**63, 2**64]
        ),
        lambda: -(10**30),
        lambda: source.choice([0.0, 200.0, float("nan"), float("inf")]),
        lambda: source.choice(["", "x", "\ud800", "200", "a\r\nb", "http.response.start", "\0"]),
        lambda: source.choice([b"", b"x", b"\r\n", b"a\r\n\r\nb", b"x" * 70000, b"\0", b"\xff"]),
        lambda: bytearray(b"bytearray"),
        lambda: memoryview(b"0123456789")[::2],
        lambda: memoryview(b"0123456789").cast("B", (2, 5)),
        lambda: memoryview(array.array("d", [1.0, 2.0])),
        lambda: array.array("i", [1, 2]),
        list,
        lambda: [1, 2],
        dict,
        lambda: {"a": 1},
        lambda: object(),
        lambda: int,
        lambda: (b"x-a", b"b"),
        lambda: source.choice([asyncio.sleep, len, Ellipsis, NotImplemented]),
        lambda: type("Number", (int,), {})(200),
        lambda: type("Bytes", (bytes,), {"__len__": lambda self: -1})(b"subclass"),
        lambda: type("Text", (str,), {"__eq__": lambda s, o: True, "__hash__": lambda s: 1})("x"),
        lambda: Truth(lambda: 1 / 0),
    ]
    return source.choice(choices)()


def any_headers(source: random.Random) -> Any:
    names = [b"x-a", b"X-B", b"content-length", b"transfer-encoding", b"connection", b"date"]
    names += [b"server", b"", b"bad name", b"x\r\n", b"set-cookie", b"trailer", b"upgrade"]
    values = [b"", b"1", b"5", b"close", b"chunked", b"keep-alive", b"a\r\nb: c", b"\0", b"-5"]
    pairs: list[Any] = []
    for _ in range(source.randint(0, 4)):
        pair: Any = (source.choice(names), source.choice(values))
        if source.random() < 0.3:
            pair = source.choice(
                [list(pair), pair[:1], (*pair, b""), any_value(source), (any_value(source), b"")]
            )
        pairs.append(pair)
    return source.choice([lambda: pairs, lambda: iter(pairs), lambda: tuple(pairs)])()


def any_message(source: random.Random) -> Any:
    if source.random() < 0.1:
        return any_value(source)
    kinds = ["http.response.start", "http.response.body"] * 6
    kinds += ["http.response.trailers", "http.response.push", "http.response.pathsend"]
    kinds += [
        "http.response.debug",
        "http.disconnect",
        "websocket.accept",
        "lifespan.startup.complete",
    ]
    message: dict[Any, Any] = {"type": source.choice(kinds)}
    if message["type"] == "http.response.start":
        message["status"] = source.choice([200, 200, 200, 204, 304, 404, any_value(source)])
        message["headers"] = source.choice([[], any_headers(source), any_value(source)])
    else:
        message["body"] = source.choice([b"part", b"", any_value(source)])
        message["more_body"] = source.choice([True, False, any_value(source)])
    for name in list(message):
        if source.random() < 0.05:
            message[name] = any_value(source)
        if source.random() < 0.03:
            del message[name]
    if source.random() < 0.1:
        message[source.choice(["trailers", "extra", 5, None])] = any_value(source)
    if source.random() < 0.05:
        return Odd(message)
    return message


@deed
async def fuzz(scope: Scope, receive: Receive, send: Send) -> None:
    source = random.Random(int(scope["query_string"]))
    give_up = source.random() < 0.3
    if source.random() < 0.5:
        message = start(200, any_headers(source) if source.random() < 0.3 else [])
        with contextlib.suppress(Exception):
            await send(message)
    for _ in range(source.randint(0, 8)):
        action = source.random()
        try:
            if action < 0.8:
                waiting = send(any_message(source))
                if source.random() < 0.9:
                    await waiting
            elif action < 0.9:
                await asyncio.sleep(0)
            elif action < 0.95:
                await asyncio.wait_for(receive(), 0.001)
            else:
                send(*[any_message(source)] * source.randint(0, 3))
        except Exception:
            if give_up:
                raise
    if source.random() < 0.2:
        raise ExpectedError("at the end")
