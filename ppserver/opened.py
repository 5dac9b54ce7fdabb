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

CONNECTION, DATABASE, LISTENER, OTHER, THREAD = range(5)

_OWN_FDS = "/proc/self/fd"
_OWN_TASKS = "/proc/self/task"
_SIGNATURES = (  # of database files: offset, bytes
    (0, b"SQLite format 3\0"),
    (8, b"DUCK"),
    (16, b"\xde\xc0\xef\xbe"),  # LMDB
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
            found.append(Found(THREAD, f"thread {thread.name}", owners.holder(thread)))
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
    is_database = any(start[at : at + len(mark)] == mark for at, mark in _SIGNATURES)
    if is_database or (not start and target.endswith(_DATABASE_SUFFIXES)):
        return DATABASE, f"the database file {target}"
    return None


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
        self._modules: dict[int, str] | None = None
        self._on_purpose: set[int] | None = None

    def is_shared_on_purpose(self, fd: int) -> bool:
        if self._on_purpose is None:
            self._on_purpose = _multiprocessing_descriptors()
        return fd in self._on_purpose

    def holder_of_descriptor(self, fd: int, kind: int) -> str:
        if self._by_descriptor is None:
            self._by_descriptor = _objects_with_descriptors()
        owners = self._by_descriptor.get(fd, [])
        sqlite = getattr(sys.modules.get("sqlite3"), "Connection", None)
        if kind == DATABASE and isinstance(sqlite, type):
            owners = list(instances(sqlite))
        return self.holder(*owners)

    def holder(self, *owners: Any) -> str:
        """``module.variable`` from which one of ``owners`` is reached in the fewest steps."""
        if not owners:
            return ""
        if self._modules is None:
            self._modules = {
                id(vars(module)): name
                for name, module in list(sys.modules.items())
                if isinstance(module, types.ModuleType) and _may_hold(name)
            }
        seen = {id(one) for one in owners}
        ours = {id(sys._getframe()), id(self.__dict__), id(self._by_descriptor), id(owners)}
        level = list(owners)
        for _ in range(_REFERRERS_DEEP):
            above = gc.get_referrers(*level)
            ours |= {id(level), id(above)}
            found = [one for one in above if id(one) in self._modules]
            for names in found:
                wanted = {id(one) for one in level}
                for variable, value in list(names.items()):
                    if id(value) in wanted:
                        return f"{self._modules[id(names)]}.{variable}"
            level = [
                one
                for one in above
                if id(one) not in seen
                and id(one) not in ours
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
