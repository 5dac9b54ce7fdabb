"""The native loop as asyncio's selector, without a server around it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from ppserver._native import Core


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core()
    yield core
    core.close()


def test_select_takes_a_timeout_by_position_and_by_name(core: Core) -> None:
    selector = core.selector()
    assert selector.select(0) == []
    assert selector.select(timeout=0.0) == []
    select: Any = selector.select
    for args, kwargs in (((0, 0), {}), ((0,), {"timeout": 0}), ((), {"time": 0})):
        with pytest.raises(TypeError, match="timeout"):
            select(*args, **kwargs)
    selector.close()
    with pytest.raises(RuntimeError, match="closed"):
        selector.select(0)


def test_select_returns_ready_keys(core: Core) -> None:
    selector = core.selector()
    reading, writing = os.pipe()
    key = selector.register(reading, 1, "data")
    os.write(writing, b"x")
    assert selector.select() == [(key, 1)]
    selector.unregister(reading)
    os.close(reading)
    os.close(writing)


def test_an_alarm_rings_once_and_when_it_is_due(core: Core) -> None:
    rung: list[bool] = []
    selector = core.selector()
    begun = time.monotonic()
    core._alarm(0.02, lambda: rung.append(True))
    while not rung and time.monotonic() < begun + 10:
        selector.select(5.0)
    assert 0.019 <= time.monotonic() - begun < 4
    selector.select(0)
    assert rung == [True]


def test_an_alarm_can_be_taken_back(core: Core) -> None:
    rung: list[bool] = []
    core._alarm(0.0, lambda: rung.append(True))
    core._alarm(0.0, None)
    core.selector().select(0)
    assert not rung
    for seconds in (-1.0, float("nan"), 1e9):
        with pytest.raises(ValueError, match="seconds"):
            core._alarm(seconds, lambda: None)


def test_an_alarm_that_fails_is_not_lost(core: Core) -> None:
    core._alarm(0.0, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        core.selector().select(0)
    assert core.selector().select(0) == []


class OddReady(deque[Any]):
    """What the selector does not know."""


class OddLoop(asyncio.SelectorEventLoop):
    _ready: deque[Any]


@pytest.mark.parametrize("kind", [deque, OddReady])
def test_batches_run_whatever_the_loop_keeps_its_handles_in(kind: type[deque[Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/there"
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def main(core: Core, port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /there HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    core = Core()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = OddLoop(core.selector())
        loop._ready = kind()
        try:
            core.serve_asgi(app, loop, state=None, on_error=lambda exc, scope: None)
            core.add_listener(listener.fileno())
            port = listener.getsockname()[1]
            assert b" 204 " in loop.run_until_complete(main(core, port))
        finally:
            core.close()
            loop.close()
