"""Public types: what an application looks like to the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, TypeAlias
from wsgiref.types import WSGIApplication

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Interface: TypeAlias = Literal["asgi", "wsgi", "parallel"]

__all__ = [
    "ASGIApplication",
    "Interface",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "WSGIApplication",
]
