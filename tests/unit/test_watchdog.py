"""A loop that does not turn, and threads that are all busy, are told of once, with the stack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving

from ppserver._native import Board, Core
from ppserver.context import watchdog
from ppserver.context.watchdog import BusyThreads, Start, Watchdog
from ppserver.observe import board
from ppserver.testing import LiveServer

LONG = 60.0


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog.logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("ppserver"), "propagate", True)
    caplog.set_level(logging.WARNING, "ppserver.error")


def block_until(condition: Callable[[], object]) -> None:
    """Keeps the loop, as an application does."""
    end = time.monotonic() + LONG
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def functions(stack: str) -> list[str]:
    """Those of a stack as it is logged, outermost first."""
    return re.findall(r'^  File ".*", line \d+, in (\S+)$', stack, re.MULTILINE)


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110 (another thread's)
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["asyncio", "uvloop"])
def test_a_loop_that_does_not_turn(how: str, caplog: pytest.LogCaptureFixture) -> None:
    stuck: list[bool] = []

    async def main() -> None:
        found = Watchdog(asyncio.get_running_loop(), stuck.append, 0.05)
        try:
            block_until(lambda: stuck)
            assert stuck == [True]
            await until(lambda: len(stuck) > 1)
        finally:
            found.stop()

    if how == "uvloop":
        serving.require("uvloop")
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
    assert stuck[:2] == [True, False]
    messages = [record.getMessage() for record in caplog.records]
    told = [text for text in messages if "has not turned" in text]
    assert functions(told[0])[:2] == ["main", "block_until"]
    assert "The event loop turns again" in messages


@pytest.mark.parametrize("how", ["asyncio", "uvloop"])
@pytest.mark.parametrize("path", ["/at-once", "/later"])
def test_the_stack_begins_with_the_application(
    how: str, path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of the server and of the loop are left out, whether or not a request has waited."""
    monkeypatch.setattr(watchdog, "STUCK_SECONDS", 0.05)
    if how == "uvloop":
        serving.require("uvloop")

    def told() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        return [text for text in messages if "has not turned" in text]

    async def answer(send: Any, path: str) -> None:
        if path == "/later":
            await asyncio.sleep(0)
        block_until(lambda: told())
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["path"])

    with LiveServer(app, loop=how, lifespan="off") as server:
        assert serving.get(f"{server.url}{path}", timeout=LONG).status_code == 204
    # The innermost may be the clock's, or this test's.
    assert functions(told()[0])[:3] == ["app", "answer", "block_until"]


def test_a_stack_without_the_application_is_whole(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call into C from the loop itself: the frames of the loop are better than none."""
    held = threading.Lock()
    held.acquire()

    def release(record: logging.LogRecord) -> bool:
        if held.locked():
            held.release()
        return True

    monkeypatch.setattr(watchdog.logger, "filters", [release])

    async def main() -> None:
        loop = asyncio.get_running_loop()
        found = Watchdog(loop, lambda stuck: None, 0.05)
        loop.call_soon(held.acquire, True, LONG)
        await asyncio.sleep(0)
        found.stop()

    asyncio.run(main())
    assert functions(caplog.records[0].getMessage())[-2:] == ["_run_once", "_run"]


def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    stuck: list[bool] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        turns = 0

        def count(*_: Any) -> None:
            nonlocal turns
            turns += 1

        found = Watchdog(loop, stuck.append, LONG)
        found._answer = count  # type: ignore[method-assign]
        await asyncio.sleep(0)
        found.stop()

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before
    assert stuck == []
    assert not caplog.records


def test_a_stuck_context_is_busy_on_the_board() -> None:
    """Whichever loop drives it: what it does between two turns of ours is not seen there."""
    shared = Board(1)
    core = Core(board=shared, slot=0)
    assert shared.read(0)["busy_permille"] == 0
    core._stuck(True)
    assert shared.read(0)["busy_permille"] == 1000
    core._stuck(False)
    assert shared.read(0)["busy_permille"] == 0
    core.close()


def test_a_handler_that_blocks_is_busy_on_the_board() -> None:
    shared = Board(1)
    seen: list[int] = []
    core = Core(board=shared, slot=0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        block_until(lambda: shared.read(0)["busy_permille"] == 1000)
        seen.append(shared.read(0)["busy_permille"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.SelectorEventLoop(core.selector())
        core.serve_asgi(app, loop)
        core.add_listener(listener.fileno())
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            loop.run_until_complete(until(lambda: seen))
        core.close()
        loop.close()
    assert seen == [1000]


@contextlib.contextmanager
def two_threads(app: Any) -> Iterator[tuple[Core, Any]]:
    """A core that serves a WSGI application on two threads, and its address."""
    core = Core()
    core.serve_wsgi(app, threads=2, on_error=lambda error, environ: None)

    def serve() -> None:
        core.run_wsgi()
        core.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        core.add_listener(listener.fileno())
        thread = threading.Thread(target=serve)
        thread.start()
        yield core, listener.getsockname()
        core.stop()
        thread.join()


def asks(address: Any, request: bytes) -> socket.socket:
    client = socket.create_connection(address, LONG)
    client.sendall(request)
    return client


def test_threads_that_are_all_busy(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STUCK_SECONDS", 0.05)
    leave = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        leave.wait(LONG)
        start_response("200 OK", [])
        return [b"x"]

    with two_threads(app) as (core, address):
        assert core._waiting() == 0.0
        clients = [asks(address, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") for _ in range(3)]
        busy = BusyThreads(2)
        block_until(lambda: core._waiting() > 0.05)
        for _ in range(2):
            busy.look(core._waiting())
        leave.set()
        for client in clients:
            assert client.recv(1000)
            client.close()
        block_until(lambda: core._waiting() == 0.0)
        assert core._waiting() == 0.0
    (record,) = caplog.records
    assert "All 2 threads have been busy" in record.getMessage()
    assert "2 of them in:" in record.getMessage()
    assert "leave.wait" in record.getMessage()
    assert functions(record.getMessage())[:2] == ["app", "wait"]
    assert board.contexts(Board(1)) == []


def test_a_client_that_leaves_waits_no_more() -> None:
    leave, calls = threading.Event(), list[str]()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        leave.wait(LONG)
        start_response("200 OK", [])
        return [b"x"]

    with two_threads(app) as (core, address):
        held = [asks(address, b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n") for _ in range(2)]
        block_until(lambda: len(calls) == 2)
        waits = asks(address, b"GET /waits HTTP/1.1\r\nhost: x\r\n\r\n")
        block_until(lambda: core._waiting() > 0)
        assert core._waiting() > 0
        waits.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        waits.close()
        block_until(lambda: core._waiting() == 0.0)
        assert core._waiting() == 0.0
        leave.set()
        for client in held:
            assert client.recv(1000)
            client.close()
    assert calls == ["/held", "/held"]


def test_a_stream_that_takes_the_place_of_one_that_ended_waits_no_more() -> None:
    """Of bodies that are read as they come half of the threads have one each at a time."""
    calls: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        body: bytes = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]

    def begun(number: int) -> None:
        block_until(lambda: len(calls) == number)

    head = b"HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    with two_threads(app) as (core, address):
        clients = []
        for path in (b"/1 ", b"/2 ", b"/3 "):
            clients.append(asks(address, b"POST " + path + head))
            begun(1)
        for number, client in enumerate(clients, 1):
            begun(number)
            block_until(lambda: core._waiting() == 0.0)
            assert core._waiting() == 0.0
            client.sendall(b"hello")
            answer = b""
            while not answer.endswith(b"hello"):
                answer += client.recv(1000)
            client.close()
        block_until(lambda: core._waiting() == 0.0)
        assert core._waiting() == 0.0
    assert calls == ["/1", "/2", "/3"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STUCK_SECONDS", "_MOMENT", "_LOOK_SECONDS"):
        monkeypatch.setattr(watchdog, name, 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_start_that_blocks_is_told_of_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    given_up = threading.Event()
    with Start(0.2, given_up.set) as start:
        start.calls("on_context_start: load", None)
        block_until(given_up.is_set)
    assert given_up.is_set()
    warning, error = caplog.messages
    assert warning.startswith("on_context_start: load has not come back for")
    assert "in block_until" in warning
    assert error.startswith("on_context_start: load took longer than 0.2 seconds")


@pytest.mark.usefixtures("impatient")
def test_a_start_that_waits_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def connect() -> None:
        await until(lambda: caplog.messages)
        await asyncio.sleep(0.05)

    async def main() -> None:
        with Start(0.0, None) as start:
            start.calls("on_context_start: connect", None)
            coroutine = connect()
            start.calls("on_context_start: connect", coroutine)
            await coroutine

    asyncio.run(main())
    (warning,) = caplog.messages
    assert "in connect" in warning
    assert "in until" in warning


def test_a_start_without_functions_needs_no_thread() -> None:
    with Start(1.0, None) as start:
        assert start._ended is None
