"""Load once, share without writing: what is loaded before the contexts start is made immortal.

A context that only reads an object writes to it nevertheless, since it counts references: forked
contexts then copy the page, threads fight over the line. Immortal objects (Python 3.12 and later)
are not counted. :func:`freeze` makes them so from given objects on; :func:`prepare` does it with
everything that is loaded, between import and the first context. On other versions only the
collector is told to leave what is there alone.

What an array or another buffer holds, the collector's own traversal does not say; :func:`_expand`
does. Live resources (locks, sockets, tasks, connections) stay mortal, and are not walked through.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ppserver import _native
from ppserver.config import Config
from ppserver.machine import gil

logger = logging.getLogger("ppserver.error")

_PROGRESS_SECONDS = 2.0

# Types whose instances are live though they have no finaliser; by module, if it is loaded. What
# has a finaliser (files, sockets, generators, tasks, event loops) needs no mention.
_LIVE = {
    "_thread": ("LockType", "RLock", "_local", "_ThreadHandle"),
    "_queue": ("SimpleQueue",),
    "_multiprocessing": ("SemLock",),
    "_sqlite3": ("Connection", "Cursor", "Blob"),
    "_ssl": ("_SSLSocket",),
    "asyncio": ("AbstractEventLoop", "BaseTransport", "Future", "Handle", "Task"),
    "asyncpg": ("Connection",),
    "concurrent.futures": ("Executor", "Future"),
    "django.db.backends.base.base": ("BaseDatabaseWrapper",),
    "greenlet": ("greenlet",),
    "MySQLdb": ("Connection",),
    "multiprocessing.process": ("BaseProcess",),
    "oracledb": ("Connection", "Cursor"),
    "ppserver._native": ("Core",),
    "psycopg": ("Connection", "AsyncConnection", "Cursor", "AsyncCursor"),
    "psycopg2.extensions": ("connection", "cursor"),
    "pymysql.connections": ("Connection",),
    "pyodbc": ("Connection", "Cursor"),
    "select": ("epoll",),
    "selectors": ("BaseSelector",),
    "threading": ("Thread", "_RLock"),
    "uvloop": ("Loop",),
}
_EXPAND = {
    "array": ("array",),
    "mmap": ("mmap",),
    "numpy": ("ndarray",),
}

# Places in the table of NumPy's C API (numpy/__multiarray_api.h), and a feature version.
_PYARRAY_GETNDARRAYCFEATUREVERSION, _PYDATAMEM_GETHANDLER = 211, 305
_NUMPY_1_22 = 0x0F

_earlier: FreezeReport | None = None  # what prepare() did here, or in the process we come from
_running = 0  # back ends whose contexts share this process and run
_warned = False


@dataclasses.dataclass(frozen=True, slots=True)
class FreezeReport:
    """What a freeze did.

    ``objects`` were made immortal that were not before, ``bytes`` is an estimate of the memory
    they take, buffers of arrays included. ``mortal`` counts, by type, the live resources that were
    met and left alone. When nothing could be made immortal, ``reason`` says why.
    """

    objects: int
    bytes: int
    seconds: float
    mortal: Mapping[str, int] = dataclasses.field(default_factory=dict)
    reason: str = ""

    @classmethod
    def nothing(cls, reason: str) -> FreezeReport:
        """A report of a freeze that did not take place."""
        return cls(0, 0, 0.0, reason=reason)

    def __str__(self) -> str:
        if self.reason:
            return f"data not frozen after load: {self.reason}"
        return f"data frozen after load: {self.bytes / 1e6:,.0f} MB shared"


def freeze(*objects: Any) -> FreezeReport:
    """Make ``objects`` and everything reachable from them immortal and leave them to be read.

    Call it before contexts start, in the application's module or in an ``on_start`` function, for
    data that no loaded module refers to; what modules refer to is frozen by itself. Immortal
    objects are never freed. Where Python has no immortal objects the garbage collector is told to
    leave alone what is there now. On a free-threaded build RuntimeError is raised once contexts
    run.
    """
    if gil.FREE_THREADED and _running:
        raise RuntimeError("freeze() has to be called before contexts run")
    report = _make_immortal(objects)
    # The collector sets immortal objects aside as it meets them; better here than in each context.
    gc.collect()
    if report.reason:
        gc.freeze()
    return report


def is_frozen(obj: Any) -> bool:
    """Whether ``obj`` is immortal, so that reading it writes nothing. Never true on Python 3.11."""
    return _native.is_immortal(obj)


def prepare(config: Config, *roots: Any) -> FreezeReport:
    """Freeze all that is loaded, before the first of several contexts starts.

    ``roots`` are objects to freeze besides what modules refer to, such as the application. With
    ``--no-freeze`` only the collector leaves alone what is there. For back ends, in the
    main thread, after the application was loaded and its ``on_start`` functions ran; and before
    that for whoever forks a process that does so: the report is about both.
    """
    global _earlier
    again = gil.FREE_THREADED and _earlier is not None
    if not again:
        gc.collect()
    report = FreezeReport.nothing("--no-freeze")
    if config.freeze:
        report = _make_immortal((*sys.modules.values(), *roots))
        if _earlier is not None:
            report = dataclasses.replace(
                report,
                objects=report.objects + _earlier.objects,
                bytes=report.bytes + _earlier.bytes,
                seconds=report.seconds + _earlier.seconds,
            )
        _earlier = report
        if report.reason:
            logger.debug("Nothing was made immortal: %s", report.reason)
        else:
            logger.debug(
                "Froze %d objects (%d bytes) in %.2f s; left mortal: %s",
                report.objects,
                report.bytes,
                report.seconds,
                ", ".join(f"{count} {name}" for name, count in sorted(report.mortal.items())),
            )
    if not again:  # Without a GIL it writes to every object, also to those set aside before.
        gc.freeze()
    return report


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While one context runs in this process: the collector leaves alone what was loaded.

    Nothing is shared, so nothing is made immortal; but full collections need not look at the
    application's modules each time.
    """
    logger.info("%s", FreezeReport.nothing("one context shares it with nobody"))
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def contexts_started() -> None:
    """A back end tells that contexts run in threads of this process from now on."""
    global _running
    _running += 1


def contexts_ended() -> None:
    """The opposite of :func:`contexts_started`."""
    global _running
    _running -= 1


def _make_immortal(objects: tuple[Any, ...]) -> FreezeReport:
    global _warned
    started = time.perf_counter()
    state, reason = _native.freeze_support()
    if state != "on":
        if state == "broken" and not _warned:
            _warned = True
            warnings.warn(f"nothing can be frozen: {reason}", RuntimeWarning, stacklevel=3)
            logger.warning("Nothing can be frozen: %s", reason)
        return FreezeReport(0, 0, time.perf_counter() - started, reason=reason)
    count, size, live = _native.freeze_objects(
        objects, _types(_LIVE), _types(_EXPAND), _expand, _progress()
    )
    mortal: dict[str, int] = {}
    for kind, number in live.items():
        name = f"{kind.__module__}.{kind.__qualname__}"
        mortal[name] = mortal.get(name, 0) + number
    return FreezeReport(count, size, time.perf_counter() - started, types.MappingProxyType(mortal))


def _types(names: Mapping[str, tuple[str, ...]]) -> tuple[type, ...]:
    """Those of the named types whose modules are loaded. Imports nothing."""
    found = set()
    for module_name, type_names in names.items():
        module = sys.modules.get(module_name)
        for name in type_names:
            kind = module.__dict__.get(name) if module is not None else None
            if isinstance(kind, type):
                found.add(kind)
    return tuple(found)


def _progress() -> Callable[[int, int], None]:
    last = time.monotonic()

    def report(count: int, size: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS:
            last = now
            logger.info("Freezing: %d objects, %.0f MB so far", count, size / 1e6)

    return report


def _expand(obj: Any) -> tuple[list[Any], int]:
    """What ``obj`` holds that the collector does not see: its objects, and its buffer's bytes."""
    try:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(obj, numpy.ndarray):
            return _expand_array(numpy, obj)
        size = getattr(obj, "itemsize", 1)
        return [], len(obj) * size
    except Exception as error:  # A subclass of the application's, or a closed mapping.
        logger.debug("Freezing: cannot look into %s: %s", type(obj), error)
        return [], 0


def _expand_array(numpy: Any, array: Any) -> tuple[list[Any], int]:
    plain = array.view(numpy.ndarray)
    found = [array.base, plain.dtype, *_allocator(numpy)]
    found += _names_of(plain.dtype)
    if plain.dtype.hasobject:
        _elements(plain, found)
    return found, plain.nbytes if array.flags.owndata else 0


@functools.cache
def _allocator(numpy: Any) -> list[Any]:
    """What hands out the memory of new arrays: counted once for each array that is made, also for
    the small ones that a call makes of its arguments. Only NumPy's C API tells (since 1.22)."""
    import ctypes  # only for those who have arrays

    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    try:
        core = sys.modules.get("numpy._core") or sys.modules["numpy.core"]
        table = pointer_of(("PyCapsule_GetPointer", ctypes.pythonapi))(
            core._multiarray_umath._ARRAY_API, None
        )
        entries = (ctypes.c_void_p * (_PYDATAMEM_GETHANDLER + 1)).from_address(table)
        version, handler = entries[_PYARRAY_GETNDARRAYCFEATUREVERSION], 0
        if version and ctypes.CFUNCTYPE(ctypes.c_uint)(version)() >= _NUMPY_1_22:
            handler = entries[_PYDATAMEM_GETHANDLER] or 0
        return [ctypes.PYFUNCTYPE(ctypes.py_object)(handler)()] if handler else []
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.debug("Freezing: cannot find the allocator of %s: %s", numpy.__name__, error)
        return []


def _names_of(dtype: Any) -> list[Any]:
    """Field names of a structured dtype and the tuples behind them."""
    if dtype.fields is None:
        return []
    return [dtype.names, *dtype.fields, *dtype.fields.values()]


def _elements(array: Any, found: list[Any]) -> None:
    """Append every Python object in ``array``, also in fields of its structures."""
    dtype = array.dtype
    if dtype.fields is not None:
        for name in dtype.names:
            if dtype.fields[name][0].hasobject:
                _elements(array[name], found)
    elif dtype.hasobject:
        found += array.ravel(order="K").tolist()
