"""A process that the application forks, and that comes back to the server.

It shares every socket and the epoll instance with its parent. So it must end where its call would:
without a word to the client, and without the parent's exit functions.
"""

from __future__ import annotations

import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving

live = serving.load_app("wsgi_live")
Context, request = live.Context, live.request

pytestmark = pytest.mark.skipif(
    serving.FREE_THREADED, reason="a child forked off several threads may hang without a GIL"
)

Start = Callable[..., Any]
Environ = dict[str, Any]


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 and later warn: there are several threads.
        return os.fork()


def end_of(child: int) -> bytes:
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode()


def leave(path: str, environ: Environ, start_response: Start) -> Any:
    """What the child does."""
    kind, _, value = path.strip("/").partition("/")
    if kind == "exit":
        sys.exit(int(value) if value.isdigit() else {"none": None, "text": "a text"}[value])
    if kind == "raise":
        raise LookupError
    if kind == "write":
        start_response("200 OK", [])(b"from the child")
    if kind == "read":
        environ["wsgi.input"].read()
    start_response("200 OK", [])
    if kind == "generator":
        return (piece for piece in [b"from ", b"the child"])
    return [b"from the child"]


def called(environ: Environ, start_response: Start) -> Any:
    if child := fork():
        code = end_of(child)
        start_response("200 OK", [])
        return [code]
    return leave(environ["PATH_INFO"], environ, start_response)


def generating(environ: Environ, start_response: Start) -> Iterator[bytes]:
    yield b""
    start_response("200 OK", [])
    yield b"first "
    if child := fork():
        yield end_of(child)
    else:
        yield from leave(environ["PATH_INFO"], environ, lambda *args: lambda piece: None)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_child_ends_with_its_call(threads: int, capfd: Any) -> None:
    with Context(called, threads=threads) as context, context.connect() as client:
        for path, code in {
            "/exit/0": b"0",
            "/exit/7": b"7",
            "/exit/263": b"7",
            "/exit/none": b"0",
            "/exit/text": b"1",
            "/raise": b"1",
            "/return": b"1",
            "/generator": b"1",
            "/write": b"1",
        }.items():
            assert client.ask(path).body == code, path
        big = request("/read", "POST", headers=("Content-Length: 2000000",))
        client.send(big)
        assert client.answer("POST").body == b"1"
    assert "a text" in capfd.readouterr().err


def test_a_child_of_a_generator_ends_with_it() -> None:
    with Context(generating) as context, context.connect() as client:
        for path, code in {"/exit/7": b"7", "/raise": b"1", "/return": b"1"}.items():
            assert client.ask(path).body == b"first " + code


WSGI = """
import atexit, os, sys
atexit.register(print, "an exit function")

def app(environ, start_response):
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        start_response("200 OK", [])
        return [str(code).encode()]
    print("from the child")
    sys.exit(7)
"""
ASGI = """
import asyncio, atexit, os, sys
atexit.register(print, "an exit function")

async def app(scope, receive, send):
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(code).encode()})
        return
    print("from the child")
    path = scope["path"]
    if path == "/await":  # asyncio says there: no running event loop
        await asyncio.sleep(1)
    if path == "/suspend":
        await asyncio.sleep(0)
        os._exit(9)
    if path == "/receive":
        while (await receive())["type"] != "http.disconnect":
            pass
    if path == "/send":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"from the child"})
        os._exit(9)
    if path in ("/return", "/receive"):
        return
    sys.exit(7)
"""


ASGI_WAYS = ("await", "suspend", "receive", "send", "return")


@pytest.mark.parametrize(
    ("text", "supervise"), [(WSGI, "always"), (ASGI, "always"), (ASGI, "never")]
)
def test_the_server_and_its_files_outlive_a_child(
    tmp_path: pathlib.Path, text: str, supervise: str
) -> None:
    (tmp_path / "shop.py").write_text(text)
    path, pid = tmp_path / "socket", tmp_path / "pid"
    args = ["--app-dir", str(tmp_path), "--bind", "127.0.0.1:0", "--bind", f"unix:{path}"]
    args += ["--pid", str(pid), "--supervise", supervise, "--lifespan", "off"]
    with serving.running("shop:app", tmp_path, args=args) as server:
        server.allow("no running event loop")
        server.allow("came back to the server")
        for _ in range(3):
            assert serving.get(server.url).text == "7"
        for way in ASGI_WAYS if text is ASGI else ():
            assert serving.get(f"{server.url}/{way}").text == "1", way
        assert serving.get(server.url).text == "7"
        assert path.exists()
        assert pid.exists()
        assert server.process.poll() is None
        log = server.log
    assert log.count("from the child") == 4 + (len(ASGI_WAYS) if text is ASGI else 0)
    assert "an exit function" not in log
