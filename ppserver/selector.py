"""The native loop as an asyncio selector."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import selectors
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppserver._native import Core

__all__ = ["CoreSelector"]


class CoreSelector(selectors.BaseSelector):
    """A selector whose ``select`` is one turn of a context's native loop.

    asyncio's own descriptors and the server's sockets wait in the same epoll descriptor; when
    requests are due, ``select`` runs them as a batch and goes on waiting, or, if asyncio has
    anything else to do, makes one more handle ready, whose callback is the batch.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._map = _FileMap(self._keys)
        core._wire(self._keys, None, None, None, None)
        self.select = core._select  # type: ignore[method-assign]  # Without a frame of Python's.

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make ``loop`` the one whose handle runs the batches."""
        context = contextvars.copy_context()
        handle = asyncio.Handle(self._core._batch, (), loop, context)
        # What is put here while select() runs, asyncio runs in the same turn.
        ready = getattr(loop, "_ready", None)
        known = all(hasattr(loop, name) for name in ("_scheduled", "_stopping", "_debug"))
        asyncios = isinstance(loop, asyncio.SelectorEventLoop) and known
        if asyncios and type(ready) is collections.deque:
            self._core._wire(self._keys, ready, handle, context, loop)
        self._core.set_ready_key(
            selectors.SelectorKey(-1, -1, selectors.EVENT_READ, (handle, None))
        )

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        _check_events(events)
        key = selectors.SelectorKey(fileobj, _fileno(fileobj), events, data)
        if key.fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {key.fd}) is already registered")
        self._core.watch(key.fd, events)
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        fd = self._map.find(fileobj)
        key = self._keys.pop(fd)
        self._core.unwatch(fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        _check_events(events)
        old = self._keys[self._map.find(fileobj)]
        if events != old.events:
            self._core.rewatch(old.fd, events)
        key = old._replace(events=events, data=data)
        self._keys[old.fd] = key
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._core.poll(timeout, self._keys)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._map

    def close(self) -> None:
        """Forget every descriptor; the core itself is closed by its owner."""
        for fd in list(self._keys):
            self._core.unwatch(fd)
        self._keys.clear()
        self._core.set_ready_key(None)
        self._core._wire(None, None, None, None, None)


class _FileMap(Mapping[Any, selectors.SelectorKey]):
    """File objects and descriptors to keys, as ``BaseSelector.get_map`` promises."""

    def __init__(self, keys: dict[int, selectors.SelectorKey]) -> None:
        self._keys = keys

    def find(self, fileobj: Any) -> int:
        """The registered descriptor of ``fileobj``, also when it has been closed meanwhile."""
        try:
            fd = _fileno(fileobj)
        except ValueError:
            for key in self._keys.values():
                if key.fileobj is fileobj:
                    return key.fd
            raise
        if fd not in self._keys:
            raise KeyError(f"{fileobj!r} is not registered")
        return fd

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[self.find(fileobj)]

    def __iter__(self) -> Any:
        return iter(self._keys)


def _check_events(events: int) -> None:
    if not events or events & ~(selectors.EVENT_READ | selectors.EVENT_WRITE):
        raise ValueError(f"invalid events: {events!r}")


def _fileno(fileobj: Any) -> int:
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"invalid file descriptor {fd}")
    return fd
