"""Applications that tell which process they run in, and that wait when asked to."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import time
from typing import Any

from support import ExpectedError, record

DIRECTORY = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])
record("import")

if (DIRECTORY / "fail-import").exists():
    raise ExpectedError("import")
if (DIRECTORY / "use-numpy").exists():
    import numpy as np


def released() -> bool:
    return (DIRECTORY / "go").exists()


def numbers() -> str:
    found = [random.random()]
    if (DIRECTORY / "use-numpy").exists():
        found.append(float(np.random.random()))
    return " ".join(str(number) for number in found)


async def answer(path: str) -> str:
    if path == "/hold":
        record("holding")
        while not released():  # noqa: ASYNC110 (a file cannot be awaited)
            await asyncio.sleep(0.01)
    elif path == "/block":
        record("blocking")
        while not released():
            time.sleep(0.01)  # noqa: ASYNC251 (that is the point)
    elif path == "/exit":
        os._exit(7)
    elif path == "/numbers":
        return numbers()
    elif path == "/who":
        return f"{os.getuid()} {os.getgid()} {os.getgroups()}"
    elif path == "/raise":
        raise ExpectedError
    return str(os.getpid())


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    record(f"startup {os.getpid()}")
    if (DIRECTORY / "die-at-start").exists():
        os._exit(9)
    if (DIRECTORY / "fail-start").exists():
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    if (DIRECTORY / "hold-start").exists():
        record("starting")
        while not released():  # noqa: ASYNC110 (a file cannot be awaited)
            await asyncio.sleep(0.01)
    if (DIRECTORY / "slow-start").exists():
        record("starting slowly")
        while not released():  # noqa: ASYNC110 (a file cannot be awaited)
            await asyncio.sleep(0.01)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record(f"shutdown {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = (await answer(scope["path"])).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/hold":
        record("holding")
        while not released():
            time.sleep(0.01)
    elif path == "/exit":
        os._exit(7)
    elif path == "/multiprocess":
        start_response("200 OK", [])
        return [str(environ["wsgi.multiprocess"]).encode()]
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def make() -> Any:
    return app
