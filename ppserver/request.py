"""The coroutine of a request that has a Task of its own (``--task eager`` and ``plain``).

It is the interpreter's, not an object of the C core, so that whatever looks at Tasks, `python -m
asyncio ps` from outside too, follows it to where the application waits. The C core makes it and
imports it by name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Protocol


class Call(Protocol):
    """One call of the application: ppserver/native/bridge/own_task.c."""

    def __await__(self) -> Generator[Any, None, None]: ...
    def __call__(self) -> Awaitable[Any]: ...
    def ended(self, error: BaseException | None) -> None: ...


async def ppserver_request(call: Call) -> None:
    """Call the application and tell how it ended. Raises nothing but CancelledError."""
    try:
        await call  # Where the C core has begun it, it waits here for the Task's first step.
        await call()
    except BaseException as error:
        call.ended(error)
    else:
        call.ended(None)
