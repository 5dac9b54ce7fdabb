"""What is in the way of a process's end: pools, threads, exit functions, requests, lifespans."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import pathlib
import tempfile
import threading
import time
from typing import Any

from support import record

DIRECTORY = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])
HERE = tempfile.TemporaryDirectory(dir=DIRECTORY, prefix="at-import-")
pools: list[concurrent.futures.ProcessPoolExecutor] = []


def at_exit(of: str) -> None:
    record(f"exit {of} {os.getpid()}")


record(f"import {os.getpid()}")
atexit.register(at_exit, "import")


def wait(what: str) -> None:
    record(what)
    while not (DIRECTORY / "go").exists():
        time.sleep(0.01)


def answer(path: str) -> None:
    if path == "/pool":  # is idle afterwards
        pools.append(concurrent.futures.ProcessPoolExecutor(1))
        pools[-1].submit(os.getpid).result()
    elif path == "/busy-pool":
        pools.append(concurrent.futures.ProcessPoolExecutor(1))
        pools[-1].submit(wait, "pool works")
    elif path == "/thread":
        threading.Thread(target=wait, args=("thread works",), name="busy one").start()
    elif path == "/fork":
        if os.fork() == 0:
            wait("child holds the connection")
            os._exit(0)
    elif path == "/exit-function":
        atexit.register(at_exit, "context")


async def stubborn() -> None:
    record("request waits")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        record("request cleaned up")


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record("lifespan ends")
    while (DIRECTORY / "hang-shutdown").exists():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            record("lifespan hangs")
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/stubborn":
        await stubborn()
    answer(scope["path"])
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
