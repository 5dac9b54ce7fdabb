"""Applications that count their requests together, whatever process or thread answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ppserver import shared

requests = shared.Counter()
by_status = shared.Array("q", 600)


def answer(path: str) -> str:
    if path == "/count":
        by_status.add(200)
        return f"{requests.add()} {threading.get_native_id()}"
    if path == "/late":
        try:
            shared.Counter()
        except RuntimeError as error:
            return str(error)
        return "made"
    return f"{requests.value} {by_status[200]} {shared.Counter(private=True).value}"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = answer(scope["path"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer(environ["PATH_INFO"]).encode()]
