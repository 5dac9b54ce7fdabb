"""The end of processes: exit functions, pools, threads, requests and lifespans in its way."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import serving
from rawhttp import Raw

pytestmark = pytest.mark.skipif(serving.PEER != "ppserver", reason="how ppserver ends")

Start = Callable[..., serving.Server]


@pytest.fixture(params=["auto", "processes"])
def start(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, started: list[serving.Server]
) -> Start:
    """``start(graceful)``: one context, with and without a supervisor."""

    def run(graceful: str = "600", contexts: int = 1) -> serving.Server:
        args = ("--timeout-graceful-shutdown", graceful)
        place = "processes" if contexts > 1 else request.param
        server = serving.launch("endings:app", tmp_path, contexts=contexts, place=place, args=args)
        started.append(server)
        server.wait_started()
        return server

    return run


def ask(server: serving.Server, path: str) -> int:
    with Raw(server) as raw:
        return int(raw.ask(path).body)


def test_an_idle_pool_lets_it_end_at_once(start: Start) -> None:
    server = start()
    ask(server, "/pool")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    server.check_log()


@pytest.mark.parametrize("what", ["thread", "pool"])
def test_what_is_busy_is_waited_for(start: Start, what: str) -> None:
    server = start()
    ask(server, "/thread" if what == "thread" else "/busy-pool")
    server.wait_for_record(f"{what} works")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Finished server process")
    assert server.process.poll() is None
    (server.directory / "go").touch()
    assert server.wait(60) == 0
    if what == "pool" and sys.version_info < (3, 12):
        # While it is waited for it may be closing the pipe by which it is told to end.
        server.allow("Bad file descriptor")
    server.check_log()


@pytest.mark.slow
def test_what_is_busy_for_too_long_is_named_and_left(start: Start) -> None:
    server = start("0")
    ask(server, "/thread")
    ask(server, "/busy-pool")
    server.wait_for_record("thread works")
    server.wait_for_record("pool works")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log(r"left behind: thread 'busy one'.*process '\S+' \[\d+\]", 60)
    assert server.wait(60) == 0


@pytest.mark.parametrize("lines", [(), ("Connection: close",)])
def test_a_child_of_the_application_does_not_hold_the_client(
    tmp_path: pathlib.Path, started: list[serving.Server], lines: tuple[str, ...]
) -> None:
    """It inherits the connection; its end is an end nevertheless, orderly or not."""
    args = () if lines else ("--timeout-keep-alive", "0.1")
    server = serving.launch("endings:app", tmp_path, args=args)
    started.append(server)
    server.wait_started()
    with Raw(server) as raw:
        raw.ask("/fork", *lines)
        server.wait_for_record("child holds the connection")
        raw.socket.settimeout(60)
        assert raw.read_to_end() == b""
    (tmp_path / "go").touch()
    server.stop()


def test_exit_functions_run_where_they_were_registered(start: Start) -> None:
    server = start(contexts=2)
    host = next(line.split()[1] for line in server.records() if line.startswith("import "))
    context = ask(server, "/exit-function")
    assert len(list(server.directory.glob("at-import-*"))) == 1
    for pid in serving.contexts(server.pid):
        if pid != context:
            subprocess.run(["kill", "-TERM", str(pid)], check=True)
            server.wait_for_log(rf"Finished server process \[{pid}\]")
            serving.wait_until(lambda: server.log.count("Started server process") == 3, 60)
    assert len(list(server.directory.glob("at-import-*"))) == 1
    server.stop()
    exits = sorted(line for line in server.records() if line.startswith("exit "))
    assert exits == [f"exit context {context}", f"exit import {host}"]
    assert not list(server.directory.glob("at-import-*"))


def test_requests_are_cancelled_before_the_lifespan_ends(start: Start) -> None:
    server = start("0.1")
    with Raw(server) as raw:
        raw.request("/stubborn")
        server.wait_for_record("request waits")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert server.records()[-3:-1] == ["request cleaned up", "lifespan ends"]
    server.check_log()


def test_a_lifespan_that_hangs_is_left(start: Start, more: bool) -> None:
    if not more:
        pytest.skip("takes 15 s")
    server = start("0.1")
    (server.directory / "hang-shutdown").touch()
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_record("lifespan hangs")
    assert server.wait(60) == 1


def test_the_end_is_bounded() -> None:
    """Whatever hangs: here a thread that is not waited for by name, and the main thread."""
    program = (
        "import threading; from ppserver.context import exits\n"
        "exits.bound(0.05, 7)\n"
        "threading.Event().wait()"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 7


def test_the_end_is_not_bounded_once_it_is_called_off() -> None:
    program = (
        "import time; from ppserver.context import exits\n"
        "exits.bound(0.05, 7); exits.unbound()\n"
        "time.sleep(0.5)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
