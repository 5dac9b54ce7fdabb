"""Locks of PyParallel: critical sections, and a reader/writer lock for each protected object.

They hold between the threads of one process. Under processes each context has a copy of its own of
what they guard. A fork takes along what the forking thread holds, and frees what others held.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

__all__ = [
    "critical_section",
    "dict",
    "list",
    "object",
    "prewait",
    "protect",
    "protected",
    "read_lock",
    "read_unlock",
    "signal",
    "synchronized",
    "try_read_lock",
    "try_write_lock",
    "unprotect",
    "write_lock",
    "write_unlock",
]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")


# Critical sections.


class _Section:
    """A lock that its thread may take again, and that survives a fork."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _sections.add(self)

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *args: Any) -> None:
        self._lock.release()

    def wrap(self, function: Callable[P, T]) -> Callable[P, T]:
        """``function``, run inside the section. TypeError for what runs only later."""
        if not callable(function):
            raise TypeError(f"expected a function, not {type(function).__name__}")
        if (
            inspect.iscoroutinefunction(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            name = getattr(function, "__qualname__", function)
            raise TypeError(f"{name}: a coroutine or generator runs after its call has returned")

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with self:
                return function(*args, **kwargs)

        return guarded

    def forked(self) -> None:
        """In the child: another thread that held the lock is not there to release it."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()


_sections: weakref.WeakSet[_Section] = weakref.WeakSet()


class CriticalSection:
    """What ``critical_section`` is.

    ::

        with critical_section: ...

        @critical_section
        def function(): ...

    ``critical_section()`` is the same as ``critical_section``.
    """

    def __init__(self) -> None:
        self._section = _Section()

    def __repr__(self) -> str:
        return "<parallel.critical_section>"

    def __enter__(self) -> Self:
        self._section.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._section.__exit__(*args)

    @overload
    def __call__(self, /) -> Self: ...

    @overload
    def __call__(self, function: Callable[P, T], /) -> Callable[P, T]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /) -> Any:
        """Itself, or ``function`` as one that runs inside the section.

        Raises TypeError for what cannot be called, and for coroutines and generators.
        """
        return self if function is None else self._section.wrap(function)


critical_section = CriticalSection()
"""The one critical section: as a context manager and as a decorator. One thread is in it at a time,
wherever in the program it is entered; the thread that is may enter it again."""


def synchronized(function: Callable[P, T], /) -> Callable[P, T]:
    """A decorator: ``function`` runs in one thread at a time, which may call it again.

    Different functions do not wait for each other; calls of a method do, for whatever instance.
    Raises TypeError for what cannot be called, and for coroutines and generators.
    """
    return _Section().wrap(function)


# Reader/writer locks.


class _ReadWriteLock:
    """Many readers or one writer. Once a writer waits, only those who read already may again.

    ``_readers`` counts what each thread holds, so that a mistake is an error, not a deadlock.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._readers: builtins.dict[int, int] = {}
        self._writer: int | None = None
        self._waiting = 0

    def read(self, *, wait: bool) -> bool:
        """Whether it is locked for reading now. RuntimeError if that would wait for itself."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._readers:
                if self._writer == me and wait:
                    raise RuntimeError("this thread holds the lock for writing")
                while self._writer is not None or self._waiting:
                    if not wait:
                        return False
                    self._changed.wait()
            self._readers[me] = self._readers.get(me, 0) + 1
            return True

    def end_read(self) -> None:
        """RuntimeError if this thread does not hold it for reading."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._readers:
                raise RuntimeError("this thread does not hold the lock for reading")
            self._readers[me] -= 1
            if not self._readers[me]:
                del self._readers[me]
                self._changed.notify_all()

    def write(self, *, wait: bool) -> bool:
        """Whether it is locked for writing now. RuntimeError if that would wait for itself."""
        me = threading.get_ident()
        with self._changed:
            if wait and (self._writer == me or me in self._readers):
                held = "writing" if self._writer == me else "reading"
                raise RuntimeError(f"this thread holds the lock for {held}")
            if not wait:
                if self._writer is not None or self._readers:
                    return False
            else:
                self._wait_to_write()
            self._writer = me
            return True

    def _wait_to_write(self) -> None:
        """With ``_changed`` held."""
        self._waiting += 1
        try:
            while self._writer is not None or self._readers:
                self._changed.wait()
        finally:
            self._waiting -= 1
            self._changed.notify_all()  # Should it have been interrupted, readers may go on.

    def end_write(self) -> None:
        """RuntimeError if this thread does not hold it for writing."""
        with self._changed:
            if self._writer != threading.get_ident():
                raise RuntimeError("this thread does not hold the lock for writing")
            self._writer = None
            self._changed.notify_all()

    def is_held(self) -> bool:
        with self._changed:
            return self._writer is not None or bool(self._readers)

    def forked(self) -> None:
        """In the child: only this thread is left."""
        me = threading.get_ident()
        self._changed = threading.Condition(threading.Lock())
        self._readers = {key: count for key, count in self._readers.items() if key == me}
        self._writer = me if self._writer == me else None
        self._waiting = 0


class _Entry:
    """The lock of a protected object, which lives as long as the object does.

    What weak references cannot be made to is kept alive until it is unprotected. A callback of a
    weak reference runs before the object's id can be another's, and may run at any moment: it
    takes no lock.
    """

    def __init__(self, obj: Any) -> None:
        self.lock = _ReadWriteLock()
        key = id(obj)
        try:
            # It is called with the reference, which pop() takes for its default.
            forget = functools.partial(_entries.pop, key)
            self.get: Callable[[], Any] = weakref.ref(obj, forget)
        except TypeError:
            self.get = lambda: obj


_entries: builtins.dict[int, _Entry] = {}  # By the id of the object.


def protect(obj: T) -> T:
    """Give ``obj``, which is returned, a reader/writer lock, unless it has one."""
    _entries.setdefault(id(obj), _Entry(obj))
    return obj


def unprotect(obj: T) -> T:
    """Take the lock of ``obj``, which is returned, away again.

    Raises ValueError if it has none, RuntimeError if it is held.
    """
    if _lock_of(obj).is_held():
        raise RuntimeError("the object's lock is held")
    _entries.pop(id(obj), None)
    return obj


def protected(obj: Any) -> bool:
    """Whether ``obj`` has a reader/writer lock."""
    entry = _entries.get(id(obj))
    return entry is not None and entry.get() is obj


def read_lock(obj: Any) -> None:
    """Wait until nobody writes ``obj`` or waits to, and lock it for reading.

    Many threads may read at a time, and one may lock as often as it unlocks. Raises ValueError if
    ``obj`` is not protected, RuntimeError if this thread holds it for writing.
    """
    _lock_of(obj).read(wait=True)


def try_read_lock(obj: Any) -> bool:
    """``read_lock``, but False instead of waiting. ValueError if ``obj`` is not protected."""
    return _lock_of(obj).read(wait=False)


def read_unlock(obj: Any) -> None:
    """End what ``read_lock`` began.

    Raises ValueError if ``obj`` is not protected, RuntimeError if this thread does not hold it so.
    """
    _lock_of(obj).end_read()


def write_lock(obj: Any) -> None:
    """Wait until nobody reads or writes ``obj``, and lock it for writing.

    Raises ValueError if ``obj`` is not protected, RuntimeError if this thread holds it already.
    """
    _lock_of(obj).write(wait=True)


def try_write_lock(obj: Any) -> bool:
    """``write_lock``, but False instead of waiting. ValueError if ``obj`` is not protected."""
    return _lock_of(obj).write(wait=False)


def write_unlock(obj: Any) -> None:
    """End what ``write_lock`` began.

    Raises ValueError if ``obj`` is not protected, RuntimeError if this thread does not hold it so.
    """
    _lock_of(obj).end_write()


def _lock_of(obj: Any) -> _ReadWriteLock:
    entry = _entries.get(id(obj))
    if entry is None or entry.get() is not obj:
        name = type(obj).__name__
        raise ValueError(f"the {name} is not protected: parallel.protect() comes first")
    return entry.lock


class object:  # noqa: A001, N801 (the name is PyParallel's)
    """A protected object that holds any attributes."""

    def __new__(cls, **attributes: Any) -> Self:
        return protect(super().__new__(cls))

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    if TYPE_CHECKING:  # It has what it was given.

        def __getattr__(self, name: str) -> Any: ...


class dict(builtins.dict[K, V]):  # noqa: A001, N801 (the name is PyParallel's)
    """A protected dict. Nothing is locked by itself: ``read_lock`` and ``write_lock`` do."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return protect(super().__new__(cls))


class list(builtins.list[T]):  # noqa: A001, N801 (the name is PyParallel's)
    """A protected list. Nothing is locked by itself: ``read_lock`` and ``write_lock`` do."""

    def __new__(cls, *args: Any) -> Self:
        return protect(super().__new__(cls))


# Events.


def prewait(event: T) -> T:
    """Say that ``event`` will be waited for; it is returned.

    PyParallel had to prepare that. Here a ``threading.Event``, or whatever has ``wait`` and
    ``set``, can be waited for anyway, so this only sees to it that it is one: TypeError if not.
    """
    _check_event(event, "wait", "set")
    return event


def signal(event: Any) -> None:
    """Set ``event``: those who wait for it go on. Raises TypeError if it is no event."""
    _check_event(event, "set")
    event.set()


def _check_event(event: Any, *names: str) -> None:
    if not all(callable(getattr(event, name, None)) for name in names):
        raise TypeError(f"event: expected a threading.Event, not {type(event).__name__}")


def _after_fork() -> None:
    for section in builtins.list(_sections):
        section.forked()
    for entry in builtins.list(_entries.values()):
        entry.lock.forked()


os.register_at_fork(after_in_child=_after_fork)
