"""Requests that have a Task of their own: `task="plain"`, `"eager"`, and under a task factory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ppserver._native import Core

KINDS = ["worker", "plain"] + ["eager"] * (sys.version_info >= (3, 12))


class OtherTask(asyncio.Task[Any]):
    """Some application's own."""


def wraps(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """As what measures Tasks does."""

    async def measured() -> Any:
        return await coro

    return asyncio.Task(measured(), loop=loop, **options)


def other(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return OtherTask(coro, loop=loop, **options)


def drops(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    coro.close()
    return asyncio.Task(asyncio.sleep(0), loop=loop, **options)


def fails(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    raise ValueError("no Task today")


class Site:
    """A core that serves an application on a loop of this thread."""

    def __init__(self, app: Any, task: str, factory: Any = None) -> None:
        self.core, self.errors = Core(), list[BaseException]()
        self.loop = asyncio.SelectorEventLoop(self.core.selector())
        self.loop.set_task_factory(factory)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.core.serve_asgi(
            app, self.loop, task=task, on_error=lambda error, scope: self.errors.append(error)
        )
        self.core.add_listener(self.listener.fileno())

    def ask(self, *paths: str) -> list[str]:
        """The first line of each answer; what is asked at once is served in one batch."""
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(self.listener.getsockname()))
                for _ in paths
            ]
            for client, path in zip(clients, paths, strict=True):
                client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                client.setblocking(False)
            return self.run(*[self.loop.sock_recv(client, 1000) for client in clients])

    def run(self, *reads: Any) -> list[str]:
        async def all_of_them() -> list[str]:
            async with asyncio.timeout(60):
                return [(await read).decode().partition("\r\n")[0] for read in reads]

        factory = self.loop.get_task_factory()
        self.loop.set_task_factory(None)
        main = self.loop.create_task(all_of_them())
        self.loop.set_task_factory(factory)
        return self.loop.run_until_complete(main)

    def end(self) -> None:
        self.core.close()
        self.loop.close()
        self.listener.close()


@contextlib.contextmanager
def site(app: Any, task: str, factory: Any = None) -> Iterator[Site]:
    made = Site(app, task, factory)
    try:
        yield made
    finally:
        made.end()


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


def name_of(task: Any) -> str:
    return getattr(task.get_coro(), "__name__", "")


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("factory", [None, wraps, other])
def test_it_serves(task: str, factory: Any) -> None:
    with site(ok, task, factory) as at:
        assert at.ask("/1", "/2") == ["HTTP/1.1 200 OK"] * 2
        assert not at.errors
        assert not at.core.request_tasks


@pytest.mark.parametrize(
    ("task", "factory"), [("plain", None), ("plain", other), ("plain", wraps), ("worker", wraps)]
)
def test_one_that_is_cancelled_before_its_first_step_is_answered(task: str, factory: Any) -> None:
    """Also where somebody keeps the Task."""
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not kept:
            kept.extend(asyncio.all_tasks() - {asyncio.current_task()})
            for task in kept:
                if name_of(task) in ("ppserver_request", "measured"):
                    task.cancel()
        await ok(scope, receive, send)

    with site(app, task, factory) as at:
        answers = at.ask("/1", "/2")
        assert sorted(answers) == ["HTTP/1.1 200 OK", "HTTP/1.1 500 Internal Server Error"]
        assert [type(error) for error in at.errors] == [asyncio.CancelledError]
        assert not at.core.request_tasks


@pytest.mark.parametrize(("factory", "said"), [(drops, "was closed"), (fails, "no Task today")])
@pytest.mark.parametrize("task", ["worker", "plain"])
def test_a_factory_that_runs_nothing(task: str, factory: Any, said: str) -> None:
    with site(ok, task, factory) as at:
        assert at.ask("/") == ["HTTP/1.1 500 Internal Server Error"]
        (error,) = at.errors
        assert said in str(error)


@pytest.mark.parametrize("when", ["before its first step", "while it waits"])
def test_one_that_is_closed_is_answered(when: str) -> None:
    closed = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            if scope["path"] == "/close":
                if when == "while it waits":
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    if name_of(task) == "ppserver_request":
                        coro: Any = task.get_coro()
                        coro.close()
            else:
                await asyncio.Event().wait()
        except GeneratorExit:
            closed.append(scope["path"])
            raise
        await ok(scope, receive, send)

    with site(app, "plain") as at:
        assert at.ask("/close", "/wait") == [
            "HTTP/1.1 200 OK",
            "HTTP/1.1 500 Internal Server Error",
        ]
        assert closed == (["/wait"] if when == "while it waits" else [])
        (error,) = at.errors
        assert str(error) == "the coroutine of an ASGI request was closed"


async def raises(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0)
    raise SystemExit("expected by the test")


def raises_at_once(scope: Any, receive: Any, send: Any) -> Any:
    raise KeyboardInterrupt("expected by the test")


async def raises_generator_exit(scope: Any, receive: Any, send: Any) -> None:
    raise GeneratorExit("expected by the test")


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("app", [raises, raises_at_once, raises_generator_exit])
def test_a_traceback_begins_with_the_application(task: str, app: Any) -> None:
    with site(app, task) as at:
        assert at.ask("/") == ["HTTP/1.1 500 Internal Server Error"]
        (error,) = at.errors
        assert str(error) == "expected by the test"
        (frame,) = traceback.extract_tb(error.__traceback__)
        assert frame.name == app.__name__


@pytest.mark.parametrize("task", KINDS)
def test_what_is_no_awaitable_is_named(task: str) -> None:
    app: Callable[..., Any] = lambda scope, receive, send: 42  # noqa: E731
    with site(app, task) as at:
        assert at.ask("/") == ["HTTP/1.1 500 Internal Server Error"]
        (error,) = at.errors
        assert "the ASGI application returned int, expected an awaitable" in str(error)
        assert error.__traceback__ is None


@pytest.mark.parametrize("task", KINDS)
def test_requests_that_a_loop_leaves_behind_are_silent(
    task: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "more_body": True})
        await asyncio.Event().wait()

    at = Site(app, task)
    assert at.ask("/", "/") == ["HTTP/1.1 200 OK"] * 2
    at.end()
    errors = at.errors
    del at
    gc.collect()
    assert not errors
    said = {record.getMessage().partition("\n")[0] for record in caplog.records}
    assert said <= {"Task was destroyed but it is pending!"}, said
