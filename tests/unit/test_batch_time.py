"""No answer waits for the handlers of the requests behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
import serving

from ppserver._native import Core

LONG = 60.0
REQUEST = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"


class Handlers:
    """The first one lets the two others come together; the third waits until the second's answer
    has arrived."""

    def __init__(self) -> None:
        self.sent = threading.Event()
        self.arrived = threading.Event()
        self.in_order = False

    def handle(self, path: str) -> None:
        if path == "/first":
            self.sent.wait(LONG)
        elif path == "/second":
            time.sleep(0.005)  # Longer than a batch may take.
        elif path == "/third":
            self.in_order = self.arrived.wait(LONG)

    def ask(self, port: int) -> None:
        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=LONG)

        with connect() as first, connect() as second, connect() as third:
            for sock in (second, third):  # No event of theirs is that of a new connection.
                sock.sendall(REQUEST % b"/")
                assert sock.recv(4096)
            first.sendall(REQUEST % b"/first")
            second.sendall(REQUEST % b"/second")
            third.sendall(REQUEST % b"/third")
            self.sent.set()
            assert second.recv(4096)
            self.arrived.set()
            assert first.recv(4096)
            assert third.recv(4096)


@pytest.mark.parametrize("suspends", [False, True], ids=["batch", "tasks"])
@pytest.mark.parametrize("how", ["asyncio", "uvloop"])
def test_asgi(how: str, suspends: bool) -> None:
    handlers = Handlers()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        handlers.handle(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    core = Core()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        if how == "asyncio":
            loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(core.selector())
        else:
            serving.require("uvloop")
            import uvloop

            loop = uvloop.new_event_loop()
            core.attach(loop)
        core.serve_asgi(app, loop)
        core.add_listener(listener.fileno())
        port = listener.getsockname()[1]
        loop.run_until_complete(asyncio.wait_for(asyncio.to_thread(handlers.ask, port), 3 * LONG))
        if how == "uvloop":
            core.detach()
        core.close()
        loop.close()
    assert handlers.in_order


def test_wsgi() -> None:
    handlers = Handlers()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handlers.handle(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"x"]

    made: list[Core] = []
    began = threading.Event()

    def serve(fd: int) -> None:
        core = Core()
        core.serve_wsgi(app, threads=1)
        core.add_listener(fd)
        made.append(core)
        began.set()
        core.run_wsgi()
        core.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        thread = threading.Thread(target=serve, args=(listener.fileno(),))
        thread.start()
        began.wait(LONG)
        handlers.ask(listener.getsockname()[1])
        made[0].stop()
        thread.join()
    assert handlers.in_order
