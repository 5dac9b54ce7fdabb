"""Applications that tell where they run: process, thread, instance, and what lifespan gave them."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import pathlib
import threading
import time
from typing import Any

from support import record

DIRECTORY = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])


class Application:
    """An ASGI application that keeps on itself what lifespan started, as many do."""

    def __init__(self) -> None:
        self.started_by: int | None = None
        self.starts = 0
        record("made")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        path = scope["path"]
        if path == "/crash":
            ctypes.string_at(0)
        elif path == "/stop-loop":
            asyncio.get_running_loop().stop()
        elif path == "/spin":
            until = time.thread_time() + 0.002
            while time.thread_time() < until:
                pass
        elif path == "/block":
            record("blocking")
            while not (DIRECTORY / "go").exists():
                time.sleep(0.01)  # noqa: ASYNC251 (that is the point)
        elif path == "/wait":
            await asyncio.sleep(0.05)
        answer = {
            "pid": os.getpid(),
            "thread": threading.get_native_id(),
            "application": id(self),
            "started_by": self.started_by,
            "starts": self.starts,
            "client": scope["client"][1],
        }
        body = json.dumps(answer).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self.started_by = threading.get_native_id()
        self.starts += 1
        record("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        record("shutdown")
        await send({"type": "lifespan.shutdown.complete"})


app = Application()


def make() -> Application:
    return Application()


async def plain(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await app(scope, receive, send)


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = json.dumps(
        {
            "pid": os.getpid(),
            "thread": threading.get_native_id(),
            "multiprocess": environ["wsgi.multiprocess"],
            "multithread": environ["wsgi.multithread"],
        }
    ).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
