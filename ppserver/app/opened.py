"""What importing the application opened, which forked contexts must not share.

A forked process has its parent's descriptors, but none of its threads. Two contexts that use one
connection get each other's answers; two that write to one database file damage it; what a thread
was to do is never done. So the host notes what is there before it imports the application
(:func:`snapshot`) and looks again before it forks (:func:`since`): at its own descriptors, as the
kernel knows them, and at its threads. Nothing is patched, so an import costs what it always did.

Left out, because sharing it is harmless: datagram sockets (a message stays whole), files (appended
to or read), and threads of native libraries without a name of their own (NumPy's, which deals with
fork by itself).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import os
import socket
import stat
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

# LOCKED is a database that one process at a time may have open for writing.
CONNECTION, DATABASE, LOCKED, LISTENER, OTHER, THREAD = range(6)

_OWN_FDS = "/proc/self/fd"
_OWN_TASKS = "/proc/self/task"
_SIGNATURES = (  # of database files: offset, bytes, kind
    (0, b"SQLite format 3\0", DATABASE),
    (8, b"DUCK", LOCKED),
    (16, b"\xde\xc0\xef\xbe", DATABASE),  # LMDB
)
_DATABASE_SUFFIXES = (".db", ".db3", ".sqlite", ".sqlite3", ".duckdb")
_ANONYMOUS = {
    "anon_inode:[eventpoll]": "an event loop (epoll)",
    "anon_inode:[eventfd]": "an eventfd",
    "anon_inode:[timerfd]": "a timer",
    "anon_inode:[signalfd]": "a signalfd",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:inotify": "a watch on files (inotify)",
}
_DEVICES = ("/dev/nvidia", "/dev/kfd")  # A GPU's driver refuses forked processes.
_HARMLESS_THREADS = {"TMonitor"}  # tqdm's; by class
_HARMLESS_NATIVE = {"jemalloc_bg_thd"}
_DATABASE_TYPES = {  # Their objects do not tell which descriptors they have.
    DATABASE: (("sqlite3", "Connection"), ("lmdb", "Environment")),
    LOCKED: (("duckdb", "DuckDBPyConnection"),),
}
_OWNER_PACKAGES = {"socket", "ssl", "select", "selectors", "psycopg", "psycopg2", "MySQLdb"}
_REFERRERS_DEEP, _REFERRERS_MAX = 12, 5000


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What a process has open and which threads run in it."""

    descriptors: dict[int, tuple[int, int]]  # number → device and inode
    threads: frozenset[int]  # the kernel's numbers


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Something that contexts must not share: what it is, and which variable holds it, or ""."""

    kind: int
    what: str
    holder: str = ""

    def __str__(self) -> str:
        return f"{self.what} (in {self.holder})" if self.holder else self.what


def snapshot() -> Snapshot:
    """What is open and runs now."""
    return Snapshot(_descriptors(), frozenset(_tasks()))


def nothing() -> Snapshot:
    """For what a whole program has opened: all but its main thread and what it was started with.

    It was started with its standard streams, and with pipes that its parent left open (``make``
    does so).
    """
    now = _descriptors()
    inherited = {fd: now[fd] for fd in now if fd < 3 or _is_inherited(fd)}
    return Snapshot(inherited, frozenset({os.getpid()}))


def _is_inherited(fd: int) -> bool:
    """Whether it is a pipe, or one of a pair of sockets, that came with the process: those that
    Python opens are closed in programs that it starts."""
    with contextlib.suppress(OSError):  # The one that listed them.
        mode = os.fstat(fd).st_mode
        if os.get_inheritable(fd) and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            described = _describe(fd)
            return described is not None and described[0] == OTHER
    return False


def since(before: Snapshot) -> list[Found]:
    """What of the kind that contexts must not share is here now and was not ``before``."""
    found: list[Found] = []
    owners = _Owners()
    for fd, identity in sorted(_descriptors().items()):
        if before.descriptors.get(fd) == identity:
            continue
        with contextlib.suppress(OSError):  # Closed by another thread meanwhile.
            described = _describe(fd)
            if described is not None and not owners.is_shared_on_purpose(fd):
                kind, what = described
                found.append(Found(kind, what, owners.holder_of_descriptor(fd, kind)))
    python_threads = threading.enumerate()
    for thread in python_threads:
        if thread.native_id in before.threads or thread is threading.main_thread():
            continue
        if type(thread).__name__ not in _HARMLESS_THREADS:
            found.append(Found(THREAD, f"thread {thread.name}", owners.holder_of_thread(thread)))
    known = before.threads | {thread.native_id for thread in python_threads}
    own_name = _task_name(os.getpid())
    for task in _tasks():
        name = "" if task in known else _task_name(task)
        if name not in ("", own_name, *_HARMLESS_NATIVE):
            found.append(Found(THREAD, f"native thread {name}"))
    return _without_repetition(found)


def must_not_be_shared(found: Iterable[Found]) -> bool:
    """Whether contexts have to import for themselves what opened these.

    An address can be listened on once only: a second import would fail. What listens (a server
    for metrics, say) does so in the host, and its thread is not missed in the contexts.
    """
    kinds = {one.kind for one in found}
    return bool(kinds - {LISTENER, THREAD}) or kinds == {THREAD}


def listed(found: Iterable[Found], at_most: int = 6) -> str:
    """A list for people."""
    texts = [str(one) for one in found]
    more = len(texts) - at_most
    return ", ".join(texts[:at_most]) + (f" and {more} more" if more > 0 else "")


def _descriptors() -> dict[int, tuple[int, int]]:
    found = {}
    for name in _entries(_OWN_FDS):
        with contextlib.suppress(OSError):  # The one that listed them.
            about = os.fstat(int(name))
            found[int(name)] = (about.st_dev, about.st_ino)
    return found


def _tasks() -> list[int]:
    return [int(name) for name in _entries(_OWN_TASKS)]


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # No /proc is mounted: then nothing can be told.
        return []


def _task_name(task: int) -> str:
    try:
        return Path(_OWN_TASKS, str(task), "comm").read_text().rstrip("\n")
    except OSError:  # It has ended.
        return ""


def _describe(fd: int) -> tuple[int, str] | None:
    """The kind of a descriptor and what to call it; None if it may be shared. OSError if closed."""
    mode = os.fstat(fd).st_mode
    target = os.readlink(f"{_OWN_FDS}/{fd}")
    if stat.S_ISSOCK(mode):
        return _describe_socket(fd)
    if stat.S_ISREG(mode):
        return _describe_file(fd, target)
    if stat.S_ISFIFO(mode):
        return OTHER, "a pipe"
    if target.startswith(_DEVICES):
        return OTHER, f"the device {target}"
    if target in _ANONYMOUS:
        return OTHER, _ANONYMOUS[target]
    return None


def _describe_socket(fd: int) -> tuple[int, str] | None:
    blocking = os.get_blocking(fd)
    with socket.socket(fileno=os.dup(fd)) as sock:
        os.set_blocking(fd, blocking)  # socket.setdefaulttimeout() would have changed it.
        if sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            return None
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return LISTENER, f"a socket that listens on {_name(sock.getsockname())}"
        try:
            peer = _name(sock.getpeername())
        except OSError:
            return None  # Not connected.
        return (CONNECTION, f"a connection to {peer}") if peer else (OTHER, "a pair of sockets")


def _name(address: Any) -> str:
    if isinstance(address, bytes):
        return "@" + os.fsdecode(address[1:])
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return str(address)


def _describe_file(fd: int, target: str) -> tuple[int, str] | None:
    """A database file that is open for writing: its pages are cached and locked per process."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        return None
    start = os.pread(fd, 32, 0)
    kinds = [kind for at, mark, kind in _SIGNATURES if start[at : at + len(mark)] == mark]
    if not start and target.endswith(_DATABASE_SUFFIXES):
        kinds.append(DATABASE)
    return (kinds[0], f"the database file {target}") if kinds else None


def _multiprocessing_descriptors() -> set[int]:
    """Descriptors that are made to be inherited: those of multiprocessing's queues and pipes."""
    found: set[int] = set()
    module = sys.modules.get("multiprocessing.connection")
    kind = getattr(module, "_ConnectionBase", None)
    if isinstance(kind, type):
        for one in instances(kind):
            with contextlib.suppress(Exception):
                found.add(one.fileno())
    tracker = getattr(
        sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None
    )
    number = getattr(tracker, "_fd", None)
    if isinstance(number, int):
        found.add(number)
    return found


def instances(*kinds: type) -> Iterator[Any]:
    """Every object of these types, or of subclasses, that the collector knows."""
    for one in gc.get_objects():
        if issubclass(type(one), kinds):
            yield one


class _Owners:
    """Which objects descriptors belong to, and which variables of modules lead to them.

    Looked up only once something was found.
    """

    def __init__(self) -> None:
        self._by_descriptor: dict[int, list[Any]] | None = None
        self._modules: dict[int, tuple[str, dict[str, Any]]] | None = None
        self._on_purpose: set[int] | None = None

    def is_shared_on_purpose(self, fd: int) -> bool:
        if self._on_purpose is None:
            self._on_purpose = _multiprocessing_descriptors()
        return fd in self._on_purpose

    def holder_of_descriptor(self, fd: int, kind: int) -> str:
        if self._by_descriptor is None:
            self._by_descriptor = _objects_with_descriptors()
        owners = self._by_descriptor.get(fd, [])
        kinds = []
        for module, name in _DATABASE_TYPES.get(kind, ()):
            one = getattr(sys.modules.get(module), name, None)
            kinds += [one] if isinstance(one, type) else []
        if kinds:
            owners = list(instances(*kinds))
        return self.holder(*owners) or self._variable_of(tuple(kinds))

    def holder_of_thread(self, thread: threading.Thread) -> str:
        # Whose method runs in it may know it by a weak reference only, as in PyMongo.
        runs = getattr(getattr(thread, "_target", None), "__self__", None)
        return self.holder(thread) or ("" if runs is None else self.holder(runs))

    def _variable_of(self, kinds: tuple[type, ...]) -> str:
        """A variable that is of one of these types: the collector does not know all objects."""
        for module, names in self._known_modules().values():
            for variable, value in list(names.items()) if kinds and _may_hold(module) else ():
                if issubclass(type(value), kinds):  # A lazy object is left as it is.
                    return f"{module}.{variable}"
        return ""

    def _known_modules(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """Name and variables of each module, by the identity of its variables."""
        if self._modules is None:
            self._modules = {
                id(vars(module)): (name, vars(module))
                for name, module in list(sys.modules.items())
                if isinstance(module, types.ModuleType)
            }
        return self._modules

    def holder(self, *owners: Any) -> str:
        """``module.variable`` from which one of ``owners`` is reached in the fewest steps."""
        if not owners:
            return ""
        modules = self._known_modules()
        seen = {id(one) for one in owners}
        ours = {id(sys._getframe()), id(self.__dict__), id(self._by_descriptor), id(owners)}
        level = list(owners)
        for _ in range(_REFERRERS_DEEP):
            # Asked one by one, since a free-threaded 3.13 makes the variables of modules unknown to
            # the collector (immortal) as soon as the first thread is started.
            wanted = {id(one) for one in level}
            for module, names in modules.values():
                for variable, value in list(names.items()) if _may_hold(module) else ():
                    if id(value) in wanted:
                        return f"{module}.{variable}"
            above = gc.get_referrers(*level)
            ours |= {id(level), id(above)}
            # Not through the variables of a module, the standard library's say: each of its
            # functions has them, and whoever imports one would seem to hold what it leads to.
            level = [
                one
                for one in above
                if id(one) not in seen
                and id(one) not in ours
                and id(one) not in modules
                and not isinstance(one, types.FrameType | types.ModuleType)
            ][:_REFERRERS_MAX]
            seen |= {id(one) for one in level}
            if not level:
                break
        return ""


def _may_hold(module: str) -> bool:
    package = module.partition(".")[0]
    return package not in sys.stdlib_module_names and package != "ppserver"


def _objects_with_descriptors() -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for one in gc.get_objects():
        kind = type(one)
        if str(kind.__module__).partition(".")[0] not in _OWNER_PACKAGES:
            continue
        method: Callable[[Any], Any] | None = getattr(kind, "fileno", None)
        if method is None:
            continue
        with contextlib.suppress(Exception):  # Closed, or a class of the application's own.
            found.setdefault(method(one), []).append(one)
    return found


def _without_repetition(found: list[Found]) -> list[Found]:
    return list(dict.fromkeys(found))
