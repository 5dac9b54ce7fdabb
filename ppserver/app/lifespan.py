"""The ASGI lifespan protocol: one task of the application around the serving of requests."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from typing import Any

from ppserver.errors import LifespanError
from ppserver.types import ASGIApplication, Message

_STARTUP = ("lifespan.startup.complete", "lifespan.startup.failed")
_SHUTDOWN = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")

logger = logging.getLogger("ppserver.error")


def takes_part(app: ASGIApplication, timeout: float = 5.0) -> bool:
    """Whether ``app`` knows lifespan, found out without starting it.

    One that does asks for the first event; it is cancelled there. One that does not returns or
    raises. Main thread, without a running loop.
    """

    async def probe() -> bool:
        asked = asyncio.Event()

        async def receive() -> Message:
            asked.set()
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nobody sets that future")

        async def send(message: Message) -> None:
            asked.set()

        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        task = asyncio.ensure_future(app(scope, receive, send))
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait((task, asking), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for one in (task, asking):
            one.cancel()
            with contextlib.suppress(BaseException):
                await one
        return asked.is_set()

    return asyncio.run(probe())


class Lifespan:
    """Runs the application's lifespan: ``startup()`` once, then ``shutdown()`` once.

    ``mode`` is ``auto`` (an application that does not know lifespan is served without),
    ``on`` (it has to) or ``off``. ``state`` is what the application put into
    ``scope["state"]``; every request gets a shallow copy of it. Only the loop's thread may
    use it.
    """

    def __init__(self, app: ASGIApplication, mode: str = "auto") -> None:
        self.state: dict[str, Any] = {}
        self.supported = False
        # What start-up sets of context variables; requests begin with a copy.
        self.context = contextvars.copy_context()
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[Message] | None = None
        self._stage = "new"
        self._asked = False

    async def startup(self, timeout: float = 0.0) -> None:
        """Start the application and wait until it says that it is ready.

        Raises LifespanError if it says that it failed, takes longer than ``timeout`` seconds
        (0 waits for ever), or does not support lifespan although ``mode`` is ``on``.
        """
        self.context = contextvars.copy_context()
        if self._mode == "off":
            return
        logger.info("Waiting for application startup.")
        self._stage = "startup"
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run(), name="ppserver lifespan")
        try:
            answer = await self._ask(timeout)
        except TimeoutError:
            await self._cancel()
            raise LifespanError(
                f"application startup took longer than {timeout:g} seconds",
                hint="timeout_startup sets the time it may take",
            ) from None
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if answer is None:
            self._no_startup_answer()
        elif answer["type"] == "lifespan.startup.failed":
            await self._cancel()
            reason = str(answer.get("message", ""))
            raise LifespanError(
                "application startup failed" + (f": {reason.rstrip()}" if reason else "")
            )
        else:
            self.supported = True
            logger.info("Application startup complete.")
        self._stage = "serving"

    async def shutdown(self, timeout: float = 0.0) -> bool:
        """Tell the application to shut down and wait until it has; False if that failed."""
        if not self.supported or self._task is None:
            return True
        logger.info("Waiting for application shutdown.")
        self._stage = "shutdown"
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        try:
            answer = await self._ask(timeout)
        except TimeoutError:
            logger.error("Application shutdown took longer than %g seconds; cancelled.", timeout)
            await self._cancel()
            return False
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            logger.error("Application shutdown failed: %s", answer.get("message", ""))
            await self._cancel()
            return False
        if answer is None and (error := self._error()) is not None:
            logger.error("Exception in application shutdown", exc_info=error)
            return False
        logger.info("Application shutdown complete.")
        await self._cancel(grace=1.0)
        return True

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        message = await self._inbox.get()
        self._asked = True
        return message

    async def _send(self, message: Message) -> None:
        kind = message.get("type") if hasattr(message, "get") else None
        expected = {"startup": _STARTUP, "shutdown": _SHUTDOWN}.get(self._stage, ())
        if kind not in expected or self._answer is None or self._answer.done():
            raise RuntimeError(f"unexpected lifespan message {kind!r} during {self._stage}")
        if kind == _STARTUP[0]:
            self.context = contextvars.copy_context()
        self._answer.set_result(message)

    async def _ask(self, timeout: float) -> Message | None:
        """The application's next answer; None if its task ends without one."""
        assert self._task is not None
        self._answer = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait(
            (self._answer, self._task),
            timeout=timeout or None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._answer.done():
            return self._answer.result()
        if not done:
            raise TimeoutError
        return None

    def _no_startup_answer(self) -> None:
        """The application ended without an answer: that is how "not supported" looks."""
        error = self._error()
        if self._mode == "on":
            if error is not None:
                logger.error("Exception in application startup", exc_info=error)
            what = f"{type(error).__name__}: {error}" if error else "it returned without an answer"
            raise LifespanError(
                f"application startup failed: {what}",
                hint="--lifespan auto serves applications without lifespan",
            ) from error
        logger.info("ASGI 'lifespan' protocol appears unsupported.")
        if error is not None:
            # The specification says to go on; but one that took the event meant to start.
            level = logging.WARNING if self._asked else logging.DEBUG
            logger.log(level, "The application's answer to lifespan was:", exc_info=error)

    def _error(self) -> BaseException | None:
        assert self._task is not None
        if not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def _cancel(self, grace: float = 0.0) -> None:
        """End the application's task, giving it ``grace`` seconds to end by itself."""
        task, self._task = self._task, None
        if task is None:
            return
        if grace:
            await asyncio.wait((task,), timeout=grace)
        task.cancel()
        await asyncio.wait((task,), timeout=5.0)
        if task.done() and not task.cancelled():
            with contextlib.suppress(BaseException):
                task.result()
