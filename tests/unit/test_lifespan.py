"""Lifespan against applications that do it right, wrong, not at all, and too slowly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ppserver.app.lifespan import Lifespan
from ppserver.errors import LifespanError


def run(app: Any, mode: str = "auto", timeout: float = 0.0) -> tuple[Lifespan, bool]:
    async def main() -> tuple[Lifespan, bool]:
        lifespan = Lifespan(app, mode)
        await lifespan.startup(timeout)
        return lifespan, await lifespan.shutdown(timeout)

    return asyncio.run(main())


async def good(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    assert scope["asgi"]["version"] == "3.0"
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["pool"] = 1
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    scope["state"]["ended"] = True
    await send({"type": "lifespan.shutdown.complete"})


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_whole_life(mode: str) -> None:
    lifespan, clean = run(good, mode)
    assert lifespan.supported
    assert lifespan.state == {"pool": 1, "ended": True}
    assert clean


def test_off_does_not_call_the_application() -> None:
    lifespan, clean = run(None, "off")
    assert not lifespan.supported
    assert clean


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def returns(scope: Any, receive: Any, send: Any) -> None: ...


async def fails_late(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("no database")


def not_even_async(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize("app", [refuses, returns, fails_late, not_even_async])
def test_unsupported(app: Any) -> None:
    lifespan, clean = run(app)
    assert not lifespan.supported
    assert clean
    with pytest.raises(LifespanError, match="startup failed"):
        run(app, "on")


def test_failure_after_the_event_was_taken_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run(fails_late)
    assert "no database" in caplog.text


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_failed(mode: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(LifespanError, match="no database") as caught:
        run(app, mode)
    assert caught.value.exit_code == 3


def test_startup_timeout_cancels() -> None:
    cancelled = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(LifespanError, match=r"longer than 0\.01 seconds"):
        run(app, timeout=0.01)
    assert cancelled


def ends_with(message: dict[str, Any] | None, error: Exception | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if message is not None:
            await send(message)
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize(
    ("app", "clean", "text"),
    [
        (ends_with(None), True, ""),
        (ends_with({"type": "lifespan.shutdown.complete"}), True, ""),
        (ends_with({"type": "lifespan.shutdown.failed", "message": "stuck"}), False, "stuck"),
        (ends_with(None, ValueError("boom")), False, "boom"),
    ],
)
def test_ends(app: Any, clean: bool, text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert run(app)[1] is clean
    assert text in caplog.text


def test_shutdown_timeout(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    assert run(app, timeout=0.01)[1] is False
    assert "longer than" in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"type": "lifespan.shutdown.complete"}, {"type": "http.response.start"}, {}, 3]
)
def test_wrong_message_raises_in_the_application(wrong: Any) -> None:
    raised = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(wrong)
        except RuntimeError as error:
            raised.append(error)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        with pytest.raises(RuntimeError):
            await send({"type": "lifespan.startup.complete"})
        await receive()

    run(app)
    assert raised
