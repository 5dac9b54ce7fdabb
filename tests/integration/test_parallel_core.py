"""Protocols of the parallel API on one core in the test's own process: who leads, and closing."""

from __future__ import annotations

import socket
import subprocess
import sys
import weakref
from typing import Any

import pytest
import serving

live = serving.load_app("wsgi_live")
Protocols, Held = live.Protocols, live.Held


def echo(client: Any, data: bytes = b"hi") -> None:
    client.send(data)
    assert client.sock.recv(len(data)) == data


class Echo:
    def data_received(self, transport: Any, data: bytes) -> bytes:
        return data


# ---- code that runs where a reference is dropped ----


class Joined:
    """The second connection's end closes the first, by a finaliser or a weakref callback."""

    how = ""
    first: Any = None

    def connection_made(self, transport: Any, data: None) -> None:
        if Joined.first is None:
            Joined.first = transport
        elif self.how == "transport":
            weakref.finalize(transport, Joined.first.close)
        else:
            self.partner = Joined.first

    def data_received(self, transport: Any, data: bytes) -> bytes:
        return data

    def __del__(self) -> None:
        if hasattr(self, "partner"):
            self.partner.close()


@pytest.mark.parametrize("how", ["transport", "protocol"])
def test_a_finaliser_closes_another_connection(how: str) -> None:
    Joined.how, Joined.first = how, None
    with Protocols(Joined) as context:
        first, second = context.connect(), context.connect()
        echo(first)
        echo(second)
        second.close()
        assert first.at_end()
        for _ in range(3):  # there is one leader, and it serves
            with context.connect() as other:
                echo(other)
    Joined.first = None


def test_a_finaliser_closes_a_connection_that_has_ended() -> None:
    Joined.how, Joined.first = "transport", None
    with Protocols(Joined) as context:
        first, second = context.connect(), context.connect()
        echo(first)
        first.close()
        echo(second)
        second.close()
        for _ in range(3):
            with context.connect() as other:
                echo(other)
    Joined.first = None


def test_a_finaliser_that_blocks_holds_nobody_up() -> None:
    """It runs as part of the application: the lead is taken from a thread that waits in one."""
    held = Held()

    class Blocking(Echo):
        def connection_made(self, transport: Any, data: None) -> None:
            if not made:
                made.append(1)
                weakref.finalize(transport, held.arrive)

    made: list[int] = []
    with Protocols(Blocking) as context, held.until():
        with context.connect() as first:
            echo(first)
        held.wait_arrived()
        with context.connect() as other:
            for _ in range(20):
                echo(other)
        held.let_go()


def test_a_body_that_closes_when_it_is_sent() -> None:
    """The last reference to a body is the server's, and the body is of the application's class."""

    class Body(bytes):
        def __del__(self) -> None:
            held.arrive()

    held = Held()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [Body(200_000) if environ["PATH_INFO"] == "/big" else b"small"]

    with live.Context(app, threads=4) as context, held.until():
        client = context.connect()
        client.send(live.request("/big"))
        assert len(client.answer().body) == 200_000
        held.wait_arrived()
        assert context.get("/").body == b"small"
        held.let_go()


def test_a_header_value_that_blocks_when_it_is_dropped() -> None:
    class Value(str):
        def __del__(self) -> None:
            held.arrive()

    held = Held()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        value = Value("value") if environ["PATH_INFO"] == "/held" else "value"
        start_response("200 OK", [("X-Value", value)])
        return [b"body"]

    with live.Context(app, threads=4) as context, held.until():
        client = context.connect()
        client.send(live.request("/held"))
        held.wait_arrived()
        for _ in range(20):
            assert context.get("/").body == b"body"
        held.let_go()
        assert client.answer().body == b"body"


# ---- from anywhere ----


def test_another_thread_closes() -> None:
    transports: list[Any] = []

    class Kept(Echo):
        def connection_made(self, transport: Any, data: None) -> None:
            transports.append(transport)

    with Protocols(Kept) as context:
        client = context.connect()
        echo(client)
        transports[0].close()
        assert client.at_end()
        transports[0].close()
    transports[0].close()


class Web:
    """Keeps transports, and closes them from requests of other connections."""

    http11 = True
    kept: list[Any] = []
    held = Held()

    def keep(self, transport: Any, data: bytes) -> bytes:
        self.kept.append(transport)
        return b"kept"

    def close(self, transport: Any, data: bytes) -> bytes:
        for other in self.kept:
            other.close()
        return b"closed"

    def hold(self, transport: Any, data: bytes) -> bytes:
        self.kept.append(transport)
        self.held.arrive()
        return b"held"


def test_another_connection_closes_an_http11_one() -> None:
    """Between requests at once, with the answer of a request that runs, and again harmlessly."""
    Web.kept, Web.held = [], Held()
    with Protocols(Web, threads=3) as context, Web.held.until():
        idle, busy, other = (context.connect() for _ in range(3))
        assert idle.ask("/keep").body == b"kept"
        busy.send(live.request("/hold"))
        Web.held.wait_arrived()
        assert other.ask("/close").body == b"closed"
        assert idle.at_end()
        Web.held.let_go()
        answer = busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"held", "close")
        assert busy.at_end()
        for _ in range(2):
            assert other.ask("/close").body == b"closed"
    Web.kept = []


IN_A_HANDLER = """
import signal, socket, sys, threading
from ppserver._native import Core
from parallel.protocol import describe

transports = []
class Kept:
    def connection_made(self, transport, data):
        transports.append(transport)
    def data_received(self, transport, data):
        if data == b"hold":
            busy.set()
            go_on.wait(60)
        return data

busy, handled, go_on = threading.Event(), threading.Event(), threading.Event()
listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(False)
core = Core()
core.serve_parallel((describe(Kept, None).as_mapping(),), threads=1)
core.add_listener(listener.fileno(), raw=True)
ours, theirs = socket.socketpair()
ours.setblocking(False)

def handler(*_):
    transports[0].close()
    core.bring(ours.detach(), 0)
    handled.set()

def client():
    first, second = (socket.create_connection(listener.getsockname()) for _ in range(2))
    first.sendall(b"hi")
    assert first.recv(10) == b"hi"
    second.sendall(b"hi")
    assert second.recv(10) == b"hi"
    if sys.argv[1] == "busy":   # the only thread is: the main thread leads
        second.sendall(b"hold")
        assert busy.wait(60)
        third = socket.create_connection(listener.getsockname())
        while core.connections < 3:  # nobody else could accept it
            pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    if sys.argv[1] != "busy":
        assert first.recv(10) == b""
    assert handled.wait(60)
    theirs.sendall(b"brought")
    go_on.set()
    assert theirs.recv(10) == b"brought"
    assert first.recv(10) == b""
    print("closed", flush=True)
    core.drain()

signal.signal(signal.SIGUSR1, handler)
threading.Thread(target=client, daemon=True).start()
core.run_wsgi()
core.close()
"""


@pytest.mark.parametrize("when", ["idle", "busy"])
def test_a_signal_handler_closes_and_brings(when: str) -> None:
    """The main thread may lead itself, so it cannot wait for another to do it."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_HANDLER, when], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("closed\n", 0), done.stderr


def test_bringing_to_a_core_that_does_not_run() -> None:
    """Nobody would take it: refused, before run_wsgi() and after it."""
    context = Protocols(Echo)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        with pytest.raises(RuntimeError, match="does not run"):
            context.core.bring(ours.fileno(), 0)
        with context:
            pass
        with pytest.raises(RuntimeError, match="closed"):
            context.core.bring(ours.fileno(), 0)
