"""Which event loop an ASGI application runs on, and how uvloop's is made.

The choice is between asyncio's own, whose selector the C core can be, and uvloop, beside which the
core is a guest. Both are measured in docs/internals/performance.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from ppserver.config import Config
from ppserver.errors import ConfigError
from ppserver.machine import gil


def choose(config: Config) -> str:
    """``"asyncio"`` or ``"uvloop"``: what ``config.loop`` comes to in this process.

    ``auto`` is uvloop where that is installed: an application that waits for databases or other
    servers gains more by its streams, which asyncio has in Python, than the core loses by being a
    guest. It is asyncio in interpreters, which uvloop refuses, and on a free-threaded Python.
    """
    if config.loop != "auto":
        return config.loop
    if config.contexts == "interpreters" or gil.FREE_THREADED:
        return "asyncio"
    try:
        uvloop_factory()
    except ConfigError:
        return "asyncio"
    return "uvloop"


def settle(config: Config, interface: str) -> Config:
    """``config`` with the loop that was chosen in place of ``auto``; only ASGI has a choice.

    To be called before a process forks contexts: uvloop is then imported once for all of them.
    """
    return dataclasses.replace(config, loop=choose(config)) if interface == "asgi" else config


def uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's way to make a loop. ConfigError if it is not installed."""
    try:
        import uvloop
    except ImportError:
        raise missing() from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def missing() -> ConfigError:
    """What there is to say when uvloop is asked for in vain."""
    return ConfigError(
        "uvloop is not installed", hint="pip install uvloop, or --loop asyncio", setting="loop"
    )
