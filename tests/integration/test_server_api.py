"""`Server` and `LiveServer` within a program: own loop, somebody else's loop, threads."""

from __future__ import annotations

import asyncio
import contextvars
import http.client
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving

import ppserver
import ppserver.context.server
from ppserver import errors
from ppserver._native import Core
from ppserver.config import Config
from ppserver.context.server import Server
from ppserver.errors import BindError, ConfigError, LifespanError, LoadError, PPServerError
from ppserver.testing import LiveServer
from ppserver.types import Stats

pytestmark = pytest.mark.skipif(serving.PEER != "ppserver", reason="the interface of ppserver")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(f"ppserver{name}") for name in ("", ".error", ".access")]
    before = [(list(item.handlers), item.propagate, item.level) for item in loggers]
    yield
    for item, (handlers, propagate, level) in zip(loggers, before, strict=True):
        item.handlers, item.propagate, item.level = handlers, propagate, level


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=serving.MUST_SECONDS) as response:
        body: bytes = response.read()
        return body


async def fetch_in_loop(server: Server, path: str = "/x") -> bytes:
    """A request by the very loop that serves it."""
    port = int(server.urls[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


async def until_started(server: Server) -> None:
    while not server.started:  # noqa: ASYNC110 (nothing to await)
        await asyncio.sleep(0.001)


LOOPS = ("asyncio", "uvloop")


def runner(loop: str) -> Callable[[Any], Any]:
    """``asyncio.run`` on that loop."""
    if loop == "asyncio":
        return asyncio.run
    serving.require("uvloop")
    import uvloop

    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as own:
            return own.run(main)

    return run


def config(application: Any = app, **settings: Any) -> Config:
    settings.setdefault("port", 0)
    settings.setdefault("access_log", False)
    return Config(application, **settings)


@pytest.mark.parametrize("application", [app, wsgi])
@pytest.mark.parametrize("loop", LOOPS)
def test_halves_within_a_running_loop(loop: str, application: Any) -> None:
    async def main() -> None:
        server = Server(config(application))
        assert not server.started
        assert server.urls == []
        await server.startup()
        assert server.started
        assert await fetch_in_loop(server) == b"/x"
        assert server.stats()["requests"] == 1
        await server.shutdown()
        assert not server.started
        assert server.stats() == {}

    runner(loop)(main())


@pytest.mark.parametrize("application", [app, wsgi])
@pytest.mark.parametrize("loop", LOOPS)
def test_while_a_block_runs(loop: str, application: Any) -> None:
    async def main() -> None:
        async with Server(config(application)) as server:
            assert server.started
            (url,) = server.urls
            assert url.startswith("http://127.0.0.1:")
            assert await fetch_in_loop(server) == b"/x"
        assert not server.started
        with pytest.raises(ValueError, match="of the block"):
            async with Server(config(application)) as server:
                raise ValueError("of the block")
        assert not server.started

    runner(loop)(main())


def test_a_block_whose_server_cannot_start_is_not_entered() -> None:
    async def main() -> None:
        async with Server(config()) as first:
            port = int(first.urls[0].rpartition(":")[2])
            with pytest.raises(BindError):
                async with Server(config(port=port)):
                    raise AssertionError("this does not run")

    asyncio.run(main())


def test_a_server_serves_once() -> None:
    server = Server(config(lifespan="off"))
    threading.Timer(0.2, setattr, (server, "should_exit", True)).start()
    assert server.run() == 0
    with pytest.raises(RuntimeError, match="serves once"):
        server.run()

    async def main() -> None:
        for method in (server.serve, server.startup):
            with pytest.raises(RuntimeError, match="serves once"):
                await method()
        async with Server(config()) as other:
            for method in (other.serve, other.startup):
                with pytest.raises(RuntimeError, match="serves once"):
                    await method()
            with pytest.raises(RuntimeError, match="serves once"):
                other.run()
            assert await fetch_in_loop(other) == b"/x"

    asyncio.run(main())


def test_stats_have_the_names_of_their_type() -> None:
    async def main() -> None:
        async with Server(config(lifespan="off")) as server:
            assert list(server.stats()) == list(Stats.__annotations__)

    asyncio.run(main())


def test_the_error_of_a_client_that_left_is_public() -> None:
    from ppserver import _native

    assert errors.ClientDisconnected is _native.ClientDisconnected
    with pytest.raises(AttributeError):
        errors.nothing  # noqa: B018


@pytest.mark.parametrize("application", [app, wsgi])
@pytest.mark.parametrize("loop", LOOPS)
def test_serve_as_a_task(loop: str, application: Any) -> None:
    async def main() -> None:
        server = Server(config(application))
        serving_task = asyncio.create_task(server.serve())
        await until_started(server)
        assert await fetch_in_loop(server) == b"/x"
        server.should_exit = True
        await asyncio.wait_for(serving_task, serving.MUST_SECONDS)
        assert server.exit_code == 0

    runner(loop)(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelling_serve_shuts_down(loop: str) -> None:
    async def main() -> None:
        server = Server(config())
        serving_task = asyncio.create_task(server.serve())
        await until_started(server)
        serving_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving_task
        assert not server.started
        with pytest.raises(ConnectionRefusedError):
            await fetch_in_loop(server)

    runner(loop)(main())


def test_two_servers_in_one_loop() -> None:
    async def main() -> None:
        servers = [Server(config()), Server(config(wsgi)), Server(config())]
        for server in servers:
            await server.startup()
        answers = await asyncio.gather(*(fetch_in_loop(server) for server in servers))
        assert answers == [b"/x"] * 3
        for server in servers:
            await server.shutdown()

    asyncio.run(main())


@pytest.mark.parametrize("application", [app, wsgi])
def test_asyncio_debug_mode(application: Any) -> None:
    async def main() -> None:
        server = Server(config(application))
        await server.startup()
        assert await fetch_in_loop(server) == b"/x"
        await server.shutdown()

    asyncio.run(main(), debug=True)


def test_signals_are_handled_and_then_as_before() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    server = Server(config())

    def kill_when_started() -> None:
        while not server.started:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill_when_started)
    thread.start()
    assert server.run() == 0
    thread.join()
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_signal_ends_a_served_loop_without_waiting(loop: str) -> None:
    """Within somebody else's program there is no ``os._exit``."""
    run = runner(loop)  # Skips before a thread waits for what never comes.
    started = threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            started.set()
            await asyncio.Event().wait()

    # Were the second signal to wait, it would be longer than this test may take.
    server = Server(config(slow, lifespan="off", timeout_graceful_shutdown=600.0))

    def client() -> None:
        while not server.started:
            time.sleep(0.001)
        port = int(server.urls[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            started.wait(serving.MUST_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)  # Closer together they count as one.
            os.kill(os.getpid(), signal.SIGTERM)
            sock.recv(1)

    async def main() -> None:
        await server.serve()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=client)
    thread.start()
    run(main())
    thread.join()


@pytest.mark.parametrize("application", [app, wsgi])
@pytest.mark.parametrize("loop", LOOPS)
def test_live_server_in_a_thread(loop: str, application: Any) -> None:
    if loop == "uvloop":
        serving.require("uvloop")
    with LiveServer(application, loop=loop) as live:
        assert fetch(live.url + "/a/b") == b"/a/b"
        assert live.stats()["requests"] == 1
        assert live.host == "127.0.0.1"
        assert live.pid == os.getpid()
        assert "ppserver running on" in live.log
    assert live.exit_code == 0
    assert "Finished server process" in live.log
    with pytest.raises(OSError):
        fetch(live.url)


def test_live_servers_side_by_side() -> None:
    with LiveServer(app) as one, LiveServer(wsgi) as two, LiveServer(app) as three:
        for live in (one, two, three):
            assert fetch(live.url + "/p") == b"/p"


def test_live_server_again_on_the_same_port() -> None:
    with LiveServer(app) as live:
        port = live.port
        assert fetch(live.url) == b"/"
    with LiveServer(app, port=port) as live:
        assert fetch(live.url) == b"/"


def test_live_server_captures_application_errors() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("told")

    with LiveServer(failing, lifespan="off") as live:
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            fetch(live.url + "/path")
        caught.value.close()
        assert "GET /path" in live.wait_for_log("ValueError: told")


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2])
def test_live_server_as_a_process(
    cores: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_APP_DIRECTORY", str(tmp_path))
    live = LiveServer(
        "lives:app",
        process=True,
        cores=cores,
        app_dir=str(serving.APPS),
        access_log=True,
        umask=0o022,
        header=("X-A: 1", "X-B: 2"),
    )
    with live:
        found = {int(fetch(live.url)) for _ in range(20)}
        assert len(found) == cores
        assert live.pid not in found  # It is the supervisor.
        with pytest.raises(RuntimeError):
            live.stats()
    assert live.exit_code == 0
    assert "GET / HTTP/1.1" in live.output
    assert live.stop() == 0


@pytest.mark.slow
def test_live_server_process_that_does_not_start() -> None:
    with pytest.raises(PPServerError, match=r"exit code 3(.|\n)*no module 'nowhere'"):
        LiveServer("nowhere:app", process=True).start()


@pytest.mark.parametrize(
    ("application", "settings", "error"),
    [
        ("nowhere:app", {}, LoadError),
        (app, {"host": "192.0.2.1"}, BindError),
        (app, {"lifespan": "on"}, LifespanError),
    ],
)
def test_errors_of_the_start(application: Any, settings: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        LiveServer(application, **settings).start()
    server = Server(config(application, **settings))
    with pytest.raises(error):
        server.run()
    assert not server.started
    again = Server(config(application, **settings))
    with pytest.raises(error):
        asyncio.run(again.serve())


def test_a_thread_that_fails_ends_the_server_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        """A core whose loop breaks as soon as it runs."""

        def __init__(self) -> None:
            self._core = make_core(config(wsgi))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._core, name)

        def run_wsgi(self) -> None:
            raise OSError("epoll is gone")

    make_core = ppserver.context.server.make_core
    monkeypatch.setattr(ppserver.context.server, "make_core", lambda _config, _seat: Failing())
    server = Server(config(wsgi))
    assert server.run() == 1
    assert server.stats() == {}


def test_missing_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ConfigError, match="uvloop is not installed"):
        Server(config(loop="uvloop")).run()


def test_lifespan_state_reaches_requests() -> None:
    async def stateful(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["word"] = b"hello"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = scope["state"]["word"]
        scope["state"]["word"] = b"changed"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with LiveServer(stateful) as live:
        assert fetch(live.url) == b"hello"
        assert fetch(live.url) == b"hello"


def test_failing_lifespan_shutdown_gives_1() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("at the end")

    with LiveServer(failing) as live:
        pass
    assert live.exit_code == 1
    assert "at the end" in live.log


def test_proxy_headers() -> None:
    async def who(scope: Any, receive: Any, send: Any) -> None:
        body = f"{scope['client']} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    headers = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    with LiveServer(who, lifespan="off", proxy_headers=True) as live:
        request = urllib.request.Request(live.url, headers=headers)
        with urllib.request.urlopen(request, timeout=serving.MUST_SECONDS) as response:
            assert response.read() == b"('1.2.3.4', 0) https"


def test_an_upgrade_that_cannot_be_served_is_told() -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    with LiveServer(app) as live:
        connection = http.client.HTTPConnection(live.host, live.port, timeout=60)
        connection.request("GET", "/", headers=headers)
        assert connection.getresponse().status == 200
        connection.close()
        assert live.stats()["upgrades"] == 1
    assert "asked to upgrade its connection to another protocol" in live.log


@pytest.mark.parametrize("level", ["critical", "debug"])
def test_live_servers_serve_at_once_with_any_log_level(level: str) -> None:
    with LiveServer(app, log_level=level) as one, LiveServer(wsgi, log_level=level) as other:
        assert one.port != other.port
        assert fetch(one.url)
        assert fetch(other.url)


@pytest.mark.parametrize("suspends", [False, True])
def test_what_a_request_leaves_in_its_context_goes_at_once(suspends: bool) -> None:
    """Not with the next request: there may be none for hours."""
    kept: contextvars.ContextVar[object] = contextvars.ContextVar("kept")
    gone = threading.Event()

    class Thing: ...

    async def leaving(scope: Any, receive: Any, send: Any) -> None:
        thing = Thing()
        weakref.finalize(thing, gone.set)
        kept.set(thing)
        if suspends:
            await asyncio.sleep(0)
        await app(scope, receive, send)

    with LiveServer(leaving, lifespan="off", loop="asyncio") as live:
        fetch(live.url)
        assert gone.wait(60)


def test_a_live_server_in_a_process_serves_with_any_log_level() -> None:
    options: dict[str, Any] = {"process": True, "app_dir": str(serving.APPS)}
    with LiveServer("spec:app", log_level="critical", **options) as one:
        with LiveServer("spec:app", log_level="error", cores=2, **options) as other:
            assert fetch(f"{one.url}/scope")
            assert fetch(f"{other.url}/scope")
    assert one.exit_code == other.exit_code == 0
    assert "running on" not in one.log


@pytest.mark.parametrize(
    "ignored", [{"cores": 2}, {"env": {}}, {"python": ("python3",)}, {"user": "nobody"}]
)
def test_a_live_server_in_a_thread_refuses_what_it_ignores(ignored: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(ignored))} has no effect"):
        LiveServer(app, **ignored)


def test_run_refuses_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="port"):
        ppserver.run(app, port=-1)
    with pytest.raises(ConfigError, match=r"^prot: there is no such setting") as caught:
        ppserver.run(app, prot=1)
    assert caught.value.hint == "did you mean port?"
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.endswith("did you mean port?\n")  # whoever does not catch it reads it, too


def test_no_descriptor_or_thread_is_left_behind() -> None:
    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for application in (app, wsgi):
        with LiveServer(application) as live:
            fetch(live.url)
    before = count()
    for application in (app, wsgi, app, wsgi):
        with LiveServer(application) as live:
            fetch(live.url)
    assert count() == before


def test_a_core_is_stopped_by_another_thread() -> None:
    """While its loop waits, with a request under way."""
    told: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append("began")
        threading.Thread(target=core.stop).start()
        told.append((await receive())["type"])
        loop.stop()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        core = Core()
        loop = asyncio.SelectorEventLoop(core.selector())
        core.serve_asgi(waits, loop)
        core.add_listener(listener.fileno())
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            loop.run_forever()
            assert client.recv(10) == b""
        core.close()
        loop.close()
    assert told == ["began", "http.disconnect"]


SETS_LOGGING_UP = """
import logging.config

logging.config.dictConfig({"version": 1, "root": {"level": "WARNING"}})

def app(environ, start_response):
    if environ["PATH_INFO"] == "/bad":
        raise ValueError("expected by the test")
    start_response("200 OK", [])
    return [b"there"]
"""


def test_an_application_that_sets_its_logging_up(tmp_path: pathlib.Path) -> None:
    """dictConfig() disables what it does not name, which is not meant for the server's loggers."""
    (tmp_path / "sets_logging_up.py").write_text(SETS_LOGGING_UP)
    options = {"process": True, "interface": "wsgi", "app_dir": str(tmp_path)}
    with LiveServer("sets_logging_up:app", start_timeout=60, **options) as server:
        assert fetch(server.url) == b"there"
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(server.url + "/bad")
        caught.value.close()
        assert "expected by the test" in server.wait_for_log("expected by the test", 60)


HANDLERS = """
import asyncio, os, signal, sys
from ppserver import Config, Server

async def app(scope, receive, send):
    pass

async def main():
    seen = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, seen.append, "TERM")
    signal.signal(signal.SIGUSR1, lambda *_: seen.append("USR1"))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    server = Server(Config(app, port=0, lifespan="off", log_level="warning"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    seen.clear()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    while len(seen) < 2:
        await asyncio.sleep(0.01)
    assert sorted(seen) == ["TERM", "USR1"], seen
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGHUP}

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_programs_signal_handlers_are_as_before(loop: str) -> None:
    if loop == "uvloop":
        serving.require("uvloop")
    command = [sys.executable, "-c", HANDLERS, loop]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
