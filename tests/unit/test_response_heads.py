"""A response's head is what its message said, whatever other responses of the context do."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ppserver._native import Core

Send = Callable[[dict[str, Any]], Awaitable[None]]
NAMES = ("one", "two")


def fields_of(name: str, count: int) -> list[tuple[bytes, bytes]]:
    return [(f"x-{name}-{n}".encode(), f"{name} {n}".encode()) for n in range(count)]


def serve(app: Callable[[str, Send], Awaitable[None]]) -> tuple[dict[str, bytes], list[str]]:
    """What each of NAMES is answered, asked at the same time; and the application's errors."""
    errors: list[str] = []

    async def asgi(scope: Any, receive: Any, send: Send) -> None:
        await app(scope["path"][1:], send)

    async def ask(port: int, name: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /{name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return answer

    async def main(port: int) -> dict[str, bytes]:
        answers = await asyncio.gather(*(ask(port, name) for name in NAMES))
        return dict(zip(NAMES, answers, strict=True))

    core = Core()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.SelectorEventLoop(core.selector())
        try:
            core.serve_asgi(asgi, loop, on_error=lambda exc, _: errors.append(str(exc)))
            core.add_listener(listener.fileno())
            return loop.run_until_complete(main(listener.getsockname()[1])), errors
        finally:
            core.close()
            loop.close()


def start(headers: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


BODY = {"type": "http.response.body", "body": b"."}


def check(answers: dict[str, bytes], count: int) -> None:
    for name, answer in answers.items():
        head = answer.partition(b"\r\n\r\n")[0]
        fields = [line for line in head.split(b"\r\n") if line.startswith(b"x-")]
        assert fields == [b": ".join(field) for field in fields_of(name, count)]
        # In chunks, if the body came later than a head waits for it.
        assert answer.endswith((b"\r\n\r\n.", b"\r\n\r\n1\r\n.\r\n0\r\n\r\n"))


@pytest.mark.parametrize("count", [0, 1, 2, 48, 49, 200])
@pytest.mark.parametrize("inner", [tuple, list])
@pytest.mark.parametrize("outer", [tuple, list, iter])
def test_heads_of_two_responses_alternate(count: int, inner: Any, outer: Any) -> None:
    both = asyncio.Barrier(2)

    async def app(name: str, send: Send) -> None:
        headers = [inner(field) for field in fields_of(name, count)]
        await both.wait()
        await send(start(outer(headers)))
        del headers
        gc.collect()
        await both.wait()
        await send(BODY)

    answers, errors = serve(app)
    check(answers, count)
    assert not errors


class Freed(list[Any]):
    """Says when it goes."""

    end: Callable[[], object]

    def __del__(self) -> None:
        self.end()


class Dropping:
    """False, and with that takes the headers out of a message: the core has the last reference."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message

    def __bool__(self) -> bool:
        self.message.pop("headers", None)
        return False


@pytest.mark.parametrize("same", [True, False])
def test_another_head_begins_while_one_is_read(same: bool) -> None:
    """Within the iteration of headers, and when they are dropped."""
    both = asyncio.Barrier(2)
    sends: dict[str, Send] = {}

    async def app(name: str, send: Send) -> None:
        sends[name] = send
        await both.wait()
        if name == "two" and not same:
            await asyncio.sleep(0.05)
            await send(BODY)
            return

        def nested() -> Any:
            return sends["one" if same else "two"](start(fields_of("one" if same else "two", 3)))

        if name == "one" and not same:
            message = start(Freed(fields_of(name, 3)))
            message["headers"].end = nested
            message["trailers"] = Dropping(message)
            await send(message)
        elif name == "one":

            def iterate() -> Iterator[tuple[bytes, bytes]]:
                nested()
                yield from fields_of("wrong", 3)

            with pytest.raises(RuntimeError, match="another message was sent"):
                await send(start(iterate()))
        else:
            await send(start(fields_of(name, 3)))
        await send(BODY)

    answers, errors = serve(app)
    check(answers, 3)
    assert not errors
