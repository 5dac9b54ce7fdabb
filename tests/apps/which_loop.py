"""Answers with the package of its event loop."""

from __future__ import annotations

import asyncio
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    package = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": package.encode()})
