"""Contexts as threads: one process, one copy of everything, and the life of processes."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import pathlib
import resource
import signal
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving

from ppserver.machine import gil

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tsan,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="the contexts of ppserver"),
]

Start = Callable[..., serving.Server]


@pytest.fixture
def start(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    """``start(app, **options)``: a server of its own with two threads, gone at the test's end."""

    def run(app: str = "places:make", **options: Any) -> serving.Server:
        options = {"contexts": 2, "place": "threads", **options}
        if app.endswith(":make"):
            options["args"] = ["--factory", *options.get("args", ())]
        server = serving.launch(app, tmp_path, **options)
        started.append(server)
        server.wait_started()
        return server

    return run


class Kept:
    """A connection that is kept."""

    def __init__(self, server: serving.Server) -> None:
        self.http = http.client.HTTPConnection(
            server.host, server.port, timeout=serving.MUST_SECONDS
        )

    def ask(self, path: str = "/") -> Any:
        self.http.request("GET", path)
        response = self.http.getresponse()
        body = response.read()
        assert response.status == 200, body
        return json.loads(body)


def ask(server: serving.Server, path: str = "/") -> Any:
    kept = Kept(server)
    try:
        return kept.ask(path)
    finally:
        kept.http.close()


@contextlib.contextmanager
def connections(server: serving.Server, count: int) -> Iterator[list[Kept]]:
    """Kept connections, each of which has had an answer."""
    opened = [Kept(server) for _ in range(count)]
    try:
        for one in opened:
            one.ask()
        yield opened
    finally:
        for one in opened:
            one.http.close()


@contextlib.contextmanager
def spread(server: serving.Server, each: int) -> Iterator[list[Kept]]:
    """Kept connections, opened until each of two contexts has so many: how they fall is chance."""
    opened: list[Kept] = []
    counts: collections.Counter[int] = collections.Counter()

    def enough() -> bool:
        opened.append(Kept(server))
        counts[opened[-1].ask()["thread"]] += 1
        return len(counts) == 2 and min(counts.values()) >= each

    try:
        serving.wait_until(enough, what=f"{each} connections on each context")
        assert len(opened) < 32 * each, counts
        yield opened
    finally:
        for one in opened:
            one.http.close()


def host_of(server: serving.Server) -> int:
    return serving.descendants(server.pid)[1]


@pytest.mark.parametrize("app", ["places:make", "places:plain", "places:wsgi"])
def test_one_process_serves_from_every_thread(start: Start, app: str) -> None:
    server = start(app)
    with connections(server, 12) if app == "places:wsgi" else spread(server, 4) as opened:
        seen = [one.ask() for one in opened]
    assert {one["pid"] for one in seen} == {host_of(server)}
    if app == "places:wsgi":
        assert not any(one["multiprocess"] for one in seen)
        assert all(one["multithread"] for one in seen)
    else:
        assert len({one["thread"] for one in seen}) == 2
    server.stop()


def test_a_factory_makes_an_application_per_context(start: Start) -> None:
    server = start("places:make")
    with spread(server, 1) as opened:
        seen = [one.ask() for one in opened]
    assert len({one["application"] for one in seen}) == 2
    assert all(one["started_by"] == one["thread"] and one["starts"] == 1 for one in seen)
    assert server.records().count("startup") == 2
    server.stop()
    assert server.records().count("shutdown") == 2


def test_one_object_with_lifespan_is_served_with_a_warning(start: Start) -> None:
    server = start("places:app")
    with connections(server, 8) as opened:
        seen = [one.ask() for one in opened]
    assert len({one["application"] for one in seen}) == 1
    assert server.records().count("startup") == 2  # `starts` is counted by two threads at once
    assert "factory" in server.log
    assert "lifespan state" in server.log
    server.stop()


def test_each_context_has_a_loop_of_its_own(start: Start) -> None:
    """A context that is stuck in one request keeps nobody else waiting."""
    server = start("places:make")
    with spread(server, 1) as opened:
        threads = [one.ask()["thread"] for one in opened]
        other = next(i for i in range(len(opened)) if threads[i] != threads[0])
        opened[0].http.request("GET", "/wait")
        for _ in range(20):
            assert opened[other].ask()["thread"] == threads[other]
        assert json.loads(opened[0].http.getresponse().read())["thread"] == threads[0]
    server.stop()


def answers(clients: list[tuple[Kept, int]], enough: int) -> collections.Counter[int]:
    """How many each thread gave while all clients asked, until there were enough of them."""
    stop, counts = threading.Event(), [0] * len(clients)

    def run(number: int) -> None:
        while not stop.is_set():
            clients[number][0].ask("/spin")
            counts[number] += 1

    asking = [threading.Thread(target=run, args=(number,)) for number in range(len(clients))]
    for one in asking:
        one.start()
    serving.wait_until(lambda: sum(counts) > enough)
    stop.set()
    for one in asking:
        one.join(serving.MUST_SECONDS)
    found: collections.Counter[int] = collections.Counter()
    for count, (_, thread) in zip(counts, clients, strict=True):
        found[thread] += count
    return found


def test_the_work_is_shared_fairly(start: Start) -> None:
    """With a GIL, too: equal clients of two contexts get about as many answers."""
    server = start("places:make")
    with spread(server, 4) as opened:
        owned: dict[int, list[Kept]] = {}
        for one in opened:
            owned.setdefault(one.ask()["thread"], []).append(one)
        clients = [(one, thread) for thread, own in owned.items() for one in own[:4]]
        # Which of its threads runs while others want the processor is up to the kernel, at times.
        for last in (False, False, False, False, True):
            counts = answers(clients, 400)
            if len(counts) == 2 and max(counts.values()) < 2 * min(counts.values()):
                break
            assert not last, counts
    server.stop()


def test_the_table_of_descriptors_is_large_from_the_start(start: Start) -> None:
    """One that threads share grows with a wait for all processors."""
    server = start("places:make")
    status = pathlib.Path(f"/proc/{ask(server)['pid']}/status").read_text()
    size = int(status.split("FDSize:")[1].split()[0])
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert size >= min(soft, 65536)
    server.stop()


def test_a_context_whose_loop_ends_is_replaced(start: Start) -> None:
    server = start("places:make")
    with spread(server, 1) as opened:
        threads = {one.ask()["thread"] for one in opened}
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            opened[0].ask("/stop-loop")
    server.wait_for_log("replacing it")
    server.wait_for_log(r"(?s)(Application startup complete.*){3}")

    def two_again() -> bool:
        with connections(server, 4) as opened:
            return len({one.ask()["thread"] for one in opened} - threads) == 1

    serving.wait_until(two_again)
    server.allow("Event loop stopped before Future completed")
    server.stop()


@pytest.mark.skipif("TEST_SANITIZER" in os.environ, reason="the sanitizer's own end of a crash")
def test_a_crash_of_the_process_is_survived(start: Start) -> None:
    server = start("places:make")
    first = ask(server)["pid"]
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(server, "/crash")
    server.wait_for_log(r"Host \[\d+\] ended with -11")
    server.wait_for_log(r"(?s)(Application startup complete.*){4}")
    assert ask(server)["pid"] != first
    server.allow("Segmentation fault")
    server.stop()


def test_reload_takes_a_new_process(start: Start) -> None:
    server = start("places:make")
    first = ask(server)["pid"]
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reloaded")
    serving.wait_until(lambda: first not in serving.descendants(server.pid))
    assert ask(server)["pid"] != first
    server.stop()


def test_more_and_fewer(start: Start) -> None:
    server = start("places:make")

    def threads() -> int:
        # A context that ends closes idle connections after a moment: then ask again.
        with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError):
            with connections(server, 12) as opened:
                return len({one.ask()["thread"] for one in opened})
        return 0

    serving.wait_until(lambda: threads() == 2)
    server.process.send_signal(signal.SIGTTIN)
    serving.wait_until(lambda: threads() == 3)
    server.process.send_signal(signal.SIGTTOU)
    serving.wait_until(lambda: threads() == 2)
    server.process.send_signal(signal.SIGTTOU)  # Two at once would count as one.
    serving.wait_until(lambda: threads() == 1)
    server.stop()


def test_limit_of_requests_replaces_threads(start: Start) -> None:
    server = start("places:make", args=["--limit-max-requests", "20"])
    first = ask(server)["pid"]

    def replaced_twice() -> bool:
        assert ask(server)["pid"] == first
        return server.log.count("Application startup complete") >= 6

    serving.wait_until(replaced_twice)
    server.stop()


def test_a_start_that_fails_ends_with_3(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fail-start").touch()
    server = serving.launch("lives:app", tmp_path, contexts=2, place="threads")
    assert server.wait() == 3
    assert "application startup failed: no database" in server.log


def test_a_pool_on_the_application_works_from_a_factory(start: Start, postgres: str) -> None:
    serving.require("psycopg", "psycopg_pool", "starlette")
    server = start("pooled:make", env={"TEST_POSTGRES": postgres})
    failures: list[BaseException] = []
    seen: set[int] = set()

    def run(number: int) -> None:
        try:
            kept = Kept(server)
            for i in range(40):
                answer = kept.ask(f"/query?number={number * 1000 + i}")
                assert answer["twice"] == 2 * (number * 1000 + i)
                seen.add(answer["thread"])
            kept.http.close()
        except BaseException as error:
            failures.append(error)

    clients = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(serving.MUST_SECONDS)
    assert not failures
    assert len(seen) == 2
    server.stop()


free_threaded = pytest.mark.skipif(not gil.FREE_THREADED, reason="needs a free-threaded Python")


@free_threaded
@pytest.mark.parametrize(
    ("app", "place", "reason"),
    [
        ("places:make", "threads", "an application per context"),
        ("places:plain", "threads", "without lifespan"),
        ("places:wsgi", "threads", "WSGI"),
        ("places:app", "processes", "give a factory"),
    ],
)
def test_auto_on_a_free_threaded_python(start: Start, app: str, place: str, reason: str) -> None:
    server = start(app, place="auto")
    assert f"contexts: 2 × {place} (" in server.log  # noqa: RUF001
    assert reason in server.log
    with connections(server, 8) as opened:
        pids = {one.ask()["pid"] for one in opened}
    assert len(pids) == (1 if place == "threads" else 2)
    server.stop()


@free_threaded
def test_one_object_with_a_pool_gets_processes(start: Start, postgres: str) -> None:
    serving.require("psycopg", "psycopg_pool", "starlette")
    server = start("pooled:app", place="auto", env={"TEST_POSTGRES": postgres})
    times = "\N{MULTIPLICATION SIGN}"
    assert f"contexts: 2 {times} processes (one application object with lifespan" in server.log
    kept = [Kept(server) for _ in range(4)]
    answers = [one.ask(f"/query?number={i}") for i, one in enumerate(kept)]
    for one in kept:
        one.http.close()
    assert [one["twice"] for one in answers] == [0, 2, 4, 6]
    assert len({one["pid"] for one in answers}) == 2
    server.stop()


def build_extension(name: str, directory: pathlib.Path) -> None:
    """Compile an extension module of tests/apps into the directory."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    command = ["gcc", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
    command += [str(serving.APPS / f"{name}.c"), "-o", str(directory / f"{name}{suffix}")]
    subprocess.run(command, check=True, timeout=60)


@free_threaded
@pytest.mark.skipif("PYTHON_GIL" in os.environ, reason="the environment says how it is to be")
@pytest.mark.parametrize("option", ["auto", "off", "on"])
def test_a_module_that_switches_the_gil_on(
    start: Start, tmp_path: pathlib.Path, option: str
) -> None:
    build_extension("single_phase", tmp_path)
    rest = filter(None, [os.environ.get("PYTHONPATH"), str(serving.ROOT)])
    path = os.pathsep.join([str(tmp_path), *rest])
    server = start("needs_gil:app", place="auto", args=["--gil", option], env={"PYTHONPATH": path})
    server.allow("has been enabled to load module")
    if option == "off":
        assert "contexts: 2 × threads" in server.log  # noqa: RUF001
    elif option == "auto":
        assert "importing single_phase switched the GIL on; --gil off" in server.log
    else:
        assert "the GIL is switched on" in server.log
    server.stop()


@pytest.mark.skipif(gil.FREE_THREADED, reason="is about a Python with a GIL")
def test_gil_off_needs_a_free_threaded_python(tmp_path: pathlib.Path) -> None:
    server = serving.launch("places:app", tmp_path, contexts=2, args=["--gil", "off"])
    assert server.wait() == 2
    assert "gil: off needs a free-threaded CPython" in server.log
