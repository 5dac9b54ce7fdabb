"""The native loop as asyncio's selector, without a server around it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
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
    rung: list[float] = []
    selector = core.selector()
    selector.select(0)
    time.sleep(0.05)  # Python is busy for longer than the alarm takes: it counts from its call on.
    begun = time.monotonic()
    core._alarm(0.02, lambda: rung.append(time.monotonic()))
    while not rung:
        selector.select(60.0)
    assert rung[0] - begun >= 0.02  # not too early
    selector.select(0)
    assert len(rung) == 1


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
        answer = await asyncio.wait_for(reader.read(), 60)
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


# --- requests are served within select() ---------------------------------------------------------


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


@contextlib.contextmanager
def serving_loop(app: Any, debug: bool = False) -> Iterator[tuple[CountingLoop, int]]:
    """A loop that serves the application, and its port; nothing runs it yet."""
    core = Core()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = CountingLoop(core.selector())
        loop.set_debug(debug)
        try:
            core.serve_asgi(app, loop, state=None, on_error=lambda exc, scope: None)
            core.add_listener(listener.fileno())
            yield loop, listener.getsockname()[1]
        finally:
            core.close()
            loop.close()


def ask_from_a_thread(port: int, count: int, done: Callable[[], object]) -> threading.Thread:
    """Requests one after the other on one connection; then `done` is called, on that thread."""

    def ask() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                for _ in range(count):
                    sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    assert b" 204 " in sock.recv(4096)
        finally:
            done()

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


async def answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


def test_an_idle_loop_makes_no_turn_for_a_request() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert asyncio.get_running_loop() is loop
        await answer(send)

    with serving_loop(app) as (loop, port):
        thread = ask_from_a_thread(port, 500, lambda: loop.call_soon_threadsafe(loop.stop))
        loop.run_forever()
        thread.join()
        assert loop.turns < 50


@pytest.mark.parametrize("how", ["soon", "later", "task", "sleep"])
def test_what_a_request_schedules_runs_while_the_loop_is_idle(how: str) -> None:
    ran: list[int] = []

    async def job() -> None:
        ran.append(1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if how == "soon":
            loop.call_soon(ran.append, 1)
        elif how == "later":
            loop.call_later(0.001, ran.append, 1)
        elif how == "task":
            tasks.add(loop.create_task(job()))
        else:
            await asyncio.sleep(0)
            ran.append(1)
        await answer(send)

    def stop() -> None:
        loop.call_later(0.1, loop.stop)

    tasks: set[Any] = set()
    with serving_loop(app) as (loop, port):
        thread = ask_from_a_thread(port, 20, lambda: loop.call_soon_threadsafe(stop))
        loop.run_forever()
        thread.join()
        assert len(ran) == 20


def test_a_timer_is_kept_while_requests_come() -> None:
    """Its time is not put off by requests, and they end with it: nothing else stops the loop."""
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            while not ended.is_set():
                sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                if b" 204 " not in sock.recv(4096):
                    break

    with serving_loop(app) as (loop, port):
        thread = threading.Thread(target=ask)
        thread.start()
        loop.call_later(0.2, loop.stop)
        loop.run_forever()
        ended.set()
        loop.call_later(0.1, loop.stop)  # the last answer
        loop.run_forever()
        thread.join()


def test_a_timer_does_not_wait_for_the_end_of_a_crowd() -> None:
    """Requests are due in every turn, for much longer than the timer has."""
    count, served, seen = 2000, 0, []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal served
        served += 1
        time.sleep(0.0001)  # noqa: ASYNC251  # It is what makes the crowd last.
        await answer(send)

    def ask() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * count)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        finally:
            loop.call_soon_threadsafe(loop.stop)

    def look() -> None:  # From the first request on: before, there is nothing to wait for.
        if served == 0:
            loop.call_soon(look)
        else:
            loop.call_later(0.01, lambda: seen.append(served))

    with serving_loop(app) as (loop, port):
        thread = threading.Thread(target=ask)
        thread.start()
        loop.call_soon(look)
        loop.run_forever()
        thread.join()
    assert served == count
    assert seen[0] < count


def test_a_request_can_stop_the_loop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop.stop()
        await answer(send)

    with serving_loop(app) as (loop, port), socket.socket() as sock:
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        loop.run_forever()
        loop.call_soon(loop.stop)  # a last turn sends the answer
        loop.run_forever()
        sock.settimeout(60)
        assert b" 204 " in sock.recv(4096)


def test_a_debugged_loop_times_its_batches(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    with serving_loop(app, debug=True) as (loop, port):
        loop.slow_callback_duration = 0.0
        thread = ask_from_a_thread(port, 3, lambda: loop.call_soon_threadsafe(loop.stop))
        loop.run_forever()
        thread.join()
        assert loop.turns > 3
    assert "_batch" in caplog.text


def test_requests_run_in_the_context_of_the_server() -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(place.get())
        place.set("a request")
        await answer(send)

    def start() -> None:
        place.set("the server")
        with serving_loop(app) as (loop, port):
            place.set("later")
            thread = ask_from_a_thread(port, 3, lambda: loop.call_soon_threadsafe(loop.stop))
            loop.run_forever()
            thread.join()
            assert place.get() == "later"

    contextvars.copy_context().run(start)
    assert seen == ["the server"] * 3
