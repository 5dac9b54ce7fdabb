"""Applications that record when each hook runs, and where."""

from __future__ import annotations

import asyncio
import os
import pathlib
import threading
import time
from typing import Any

from support import ExpectedError, record

import ppserver

DIRECTORY = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])
here = threading.local()


def fail_if_told(name: str) -> None:
    if (DIRECTORY / f"fail-{name}").exists():
        raise ExpectedError(name)


@ppserver.on_start
def start() -> None:
    record("start")
    fail_if_told("start")


@ppserver.on_stop
def stop() -> None:
    record("stop")


@ppserver.on_stop
def stop_first() -> None:
    record("stop first")
    fail_if_told("stop")


@ppserver.on_context_start
def context_start() -> None:
    record("context start")
    here.value = threading.get_native_id()
    fail_if_told("context-start")


@ppserver.on_context_stop
def context_stop() -> None:
    assert here.value == threading.get_native_id()
    record("context stop")


@ppserver.on_context_stop
def context_stop_first() -> None:
    record("context stop first")
    fail_if_told("context-stop")


def hanging_start() -> None:
    record("hanging")
    time.sleep(600)


async def hanging_async_start() -> None:
    record("hanging")
    await wait_for_ever()


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def named_start() -> None:
    await asyncio.sleep(0)
    record("named start")


async def named_stop() -> None:
    await asyncio.sleep(0)
    record("named stop")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        record("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        record("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []
