"""What a server class answers, gathered from it once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from parallel.http.routing import Handler, Routes, overloads, routed

STANDARD = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")
)

plans_lock = threading.Lock()  # held while a plan is made, or a class is merged


class Plan:
    """Made once for a class, then only read. A merge begins another epoch."""

    def __init__(self, cls: Any, epoch: int) -> None:
        self.epoch = epoch
        handlers = _gathered(cls, routed)
        self.routes = Routes(handlers)
        self.overloads = _gathered(cls, overloads)
        self.commands = frozenset(
            name[3:] for name in dir(cls) if name.startswith("do_") and callable(getattr(cls, name))
        )
        self.methods = STANDARD.union(self.commands, *(h.methods for h in handlers.values()))
        self.root = os.path.realpath(os.getcwd() if cls.root is None else cls.root)
        self.root_given = cls.root


def _gathered(cls: type, find: Callable[[type], dict[str, Handler]]) -> dict[str, Handler]:
    """A class's own handlers, and those of merged classes under keys that are still free."""
    handlers = find(cls)
    for base in cls.__mro__:
        for other in vars(base).get("_merged", ()):
            for key, handler in _gathered(other, find).items():
                handlers.setdefault(key, handler)
    return handlers


def all_merged(cls: type) -> list[type]:
    """The classes that have been merged into one, and into those."""
    found: list[type] = []
    for base in cls.__mro__:
        for other in vars(base).get("_merged", ()):
            found += (other, *all_merged(other))
    return found
