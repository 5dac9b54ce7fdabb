"""The list of hostile deeds, and what they share."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
Deed = Callable[[Scope, Receive, Send], Any]

DEEDS: dict[str, Deed] = {}
kept: list[Any] = []


def deed(function: Deed) -> Deed:
    DEEDS[function.__name__.replace("_", "-")] = function
    return function


def start(status: Any = 200, headers: Any = ()) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: Any = b"", more: Any = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@deed
async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"hello"))


def finish(send: Send) -> None:
    """A whole response from where nobody expects one."""
    with contextlib.suppress(Exception):
        send(start())
    with contextlib.suppress(Exception):
        send(body(b"from within"))
