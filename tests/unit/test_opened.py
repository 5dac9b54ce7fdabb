"""What an import opened, as the kernel and the collector tell it."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import multiprocessing
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from ppserver.app import disposal, opened


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the application, to hold what it opens."""
    found = types.ModuleType("shop.database")
    monkeypatch.setitem(sys.modules, "shop.database", found)
    return found


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def found(before: opened.Snapshot) -> list[str]:
    return [str(one) for one in opened.since(before)]


def test_a_connection_and_who_holds_it(module: Any, listening: socket.socket) -> None:
    address = listening.getsockname()
    before = opened.snapshot()
    with socket.create_connection(address) as sock:
        module.pool = {"idle": [sock]}
        assert found(before) == [f"a connection to 127.0.0.1:{address[1]} (in shop.database.pool)"]
        module.pool = None
        assert found(before) == [f"a connection to 127.0.0.1:{address[1]}"]
    assert found(before) == []


def test_variables_of_modules_need_not_be_known_to_the_collector(
    module: Any, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not on free-threaded builds of 3.13, once a thread has been started."""
    known = gc.get_referrers
    monkeypatch.setattr(
        "gc.get_referrers", lambda *of: [one for one in known(*of) if one is not vars(module)]
    )
    before = opened.snapshot()
    with socket.create_connection(listening.getsockname()) as sock:
        module.pool = {"idle": [sock]}
        assert found(before)[0].endswith(" (in shop.database.pool)")


def test_looking_leaves_a_descriptor_as_it_was(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened.snapshot()
    with socket.create_connection(listening.getsockname()) as sock:
        socket.setdefaulttimeout(5)
        try:
            assert len(opened.since(before)) == 1
        finally:
            socket.setdefaulttimeout(None)
        assert not fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK


def test_unix_sockets_have_names(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        before = opened.snapshot()
        client.close()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            assert f"a connection to {path}" in found(before)[0]


def test_what_is_harmless(tmp_path: pathlib.Path) -> None:
    before = opened.snapshot()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd,
        socket.socket() as unconnected,
        open(tmp_path / "log", "a") as log,
        open(tmp_path / "both.txt", "w+") as both,
        sqlite3.connect(":memory:") as memory,
    ):
        statsd.connect(("127.0.0.1", 9))
        log.write("line\n")
        both.write("text")
        queue: Any = multiprocessing.get_context("fork").Queue()
        assert unconnected.fileno() > 0
        assert found(before) == []
        queue.close()
    memory.close()


def test_database_files(module: Any, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "shop.data")
    before = opened.snapshot()
    module.db = sqlite3.connect(path)
    module.db.execute("create table t (x)")
    module.db.commit()
    assert found(before) == [f"the database file {path} (in shop.database.db)"]
    module.db.close()
    reading = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    reading.execute("select * from t").fetchall()
    assert found(before) == []
    reading.close()
    empty = sqlite3.connect(tmp_path / "empty.sqlite3")
    assert "empty.sqlite3" in found(before)[0]
    empty.close()


def test_a_database_that_one_process_may_have(module: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "shop.data"
    path.write_bytes(bytes(8) + b"DUCK" + bytes(100))
    before = opened.snapshot()
    with path.open("r+b"):
        assert [one.kind for one in opened.since(before)] == [opened.LOCKED]
    with path.open("rb"):
        assert opened.since(before) == []


def test_what_is_held_through_the_standard_library_is_not_named(module: Any) -> None:
    """A thread is known to `threading`, whose functions many modules have imported."""
    before = opened.snapshot()
    module.RLock = threading.RLock
    end = threading.Event()
    worker = [threading.Thread(target=end.wait, name="mine")]
    worker[0].start()
    assert found(before) == ["thread mine"]
    end.set()
    worker.pop().join()


def test_objects_that_the_collector_does_not_know(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    class Environment:
        __slots__ = ()

    class Lazy:
        @property
        def __class__(self) -> Any:
            raise AssertionError("it was looked at")

    lmdb = types.ModuleType("lmdb")
    vars(lmdb)["Environment"] = Environment
    monkeypatch.setitem(sys.modules, "lmdb", lmdb)
    path = tmp_path / "data.mdb"
    path.write_bytes(bytes(16) + b"\xde\xc0\xef\xbe" + bytes(100))
    before = opened.snapshot()
    module.lazy, module.environment = Lazy(), Environment()
    with path.open("r+b"):
        assert found(before) == [f"the database file {path} (in shop.database.environment)"]


def test_event_loops_pipes_and_the_like(module: Any) -> None:
    before = opened.snapshot()
    module.loop = asyncio.new_event_loop()
    assert found(before) == [
        "an event loop (epoll) (in shop.database.loop)",
        "a pair of sockets (in shop.database.loop)",
    ]
    module.loop.close()
    one, other = os.pipe()
    event = os.eventfd(0)
    assert found(before) == ["a pipe", "an eventfd"]
    for fd in (one, other, event):
        os.close(fd)


def test_what_a_program_was_started_with_is_not_its_own() -> None:
    fds = [*os.pipe(), *(one.detach() for one in socket.socketpair())]
    try:
        assert not {*fds} & {*opened.nothing().descriptors}
        for fd in fds:
            os.set_inheritable(fd, True)
        assert not {*fds} - {*opened.nothing().descriptors}
    finally:
        for fd in fds:
            os.close(fd)


def test_threads(module: Any) -> None:
    before = opened.snapshot()
    end = threading.Event()
    module.worker = threading.Thread(target=end.wait, name="mine")
    module.worker.start()
    assert found(before) == ["thread mine (in shop.database.worker)"]
    assert found(opened.snapshot()) == []
    end.set()
    module.worker.join()


def test_a_thread_that_is_known_by_what_it_runs(module: Any) -> None:
    class Executor:
        def __init__(self) -> None:
            self.end = threading.Event()

        def run(self) -> None:
            self.end.wait()

    before = opened.snapshot()
    module.client = [Executor()]
    worker = [threading.Thread(target=module.client[0].run, name="mine")]
    worker[0].start()
    assert found(before) == ["thread mine (in shop.database.client)"]
    module.client[0].end.set()
    worker.pop().join()


def test_native_threads_with_a_name_of_their_own() -> None:
    """Those of a run-time system; a numeric library's threads are called as the process is."""
    program = """
import ctypes, threading
from ppserver.app import opened
libc = ctypes.CDLL(None)
before = opened.snapshot()
end, named = threading.Event(), threading.Event()
def run(name):
    libc.prctl(15, name, 0, 0, 0)
    named.set()
    end.wait()
    return None
def start(name):
    named.clear()
    kind = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    function = kind(lambda _: run(name))
    thread = ctypes.c_ulong()
    libc.pthread_create(ctypes.byref(thread), None, function, None)
    named.wait()
    return thread, function
own = open("/proc/self/comm", "rb").read().rstrip()
all = [start(own), start(b"tokio-worker"), start(b"jemalloc_bg_thd")]
print([str(one) for one in opened.since(before)], flush=True)
import os
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "native thread tokio-worker" in done.stdout
    assert "jemalloc" not in done.stdout


def test_when_each_context_has_to_import() -> None:
    listener = opened.Found(opened.LISTENER, "")
    thread = opened.Found(opened.THREAD, "")
    connection = opened.Found(opened.CONNECTION, "")
    assert opened.must_not_be_shared([thread])
    assert opened.must_not_be_shared([connection])
    assert not opened.must_not_be_shared([listener])
    assert not opened.must_not_be_shared([listener, thread]), "it could listen only once"
    assert opened.must_not_be_shared([listener, connection])


def test_a_list_that_is_too_long() -> None:
    many = [opened.Found(opened.OTHER, str(number)) for number in range(9)]
    assert opened.listed(many) == "0, 1, 2, 3, 4, 5 and 3 more"


def test_disposal_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in disposal._KNOWN:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    disposal.dispose()


def test_engines_in_memory_stay(tmp_path: pathlib.Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    before = opened.snapshot()
    memory = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
    on_disk = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db")
    for engine in (memory, on_disk):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table t (x)"))
    assert len(opened.since(before)) == 1
    disposal.dispose()
    assert found(before) == []
    for engine in (memory, on_disk):
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("select * from t")).all() == []
        engine.dispose()
