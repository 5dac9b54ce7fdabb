"""asgiref, which Django stands on, finds its way about."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async

from battery.core import (
    check,
    kept,
    var,
)


@check
async def asgiref_sync_to_async() -> None:
    var.set("outer")

    def in_thread() -> tuple[str, int]:
        seen = var.get()
        var.set("inner")
        return seen, threading.get_ident()

    seen, ident = await sync_to_async(in_thread)()
    assert seen == "outer"
    assert ident != threading.get_ident()
    assert var.get() == "inner", "asgiref carries context variables back"


@check
async def asgiref_is_thread_sensitive() -> None:
    first = await sync_to_async(threading.get_ident)()
    second = await sync_to_async(threading.get_ident)()
    assert first == second


@check
async def asgiref_async_to_sync() -> None:
    loop = asyncio.get_running_loop()

    async def in_main() -> Any:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    assert await sync_to_async(async_to_sync(in_main))() is loop


@check
async def asgiref_nested() -> None:
    def inner() -> str:
        return "inner"

    async def middle() -> str:
        return await sync_to_async(inner)()

    assert await sync_to_async(async_to_sync(middle))() == "inner"


@check
async def asgiref_local() -> None:
    local = kept["local"] = Local()
    local.value = "first"
    await asyncio.sleep(0)
    assert local.value == "first"
    assert await sync_to_async(lambda: local.value)() == "first"


@check
async def asgiref_local__2() -> None:
    assert not hasattr(kept["local"], "value")
