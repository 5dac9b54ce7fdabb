"""A WSGI context inside the test's own process, so that tests and application share events.

    with Context(app, threads=4) as context:
        answer = context.get("/")

The client is http.client's response parser on a plain socket: another implementation than ours.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from parallel.protocol import describe

from ppserver._native import Core

SECONDS = 20.0


class _Kept(io.BufferedReader):
    """A reader that http.client may close without closing it."""

    def close(self) -> None:
        pass


class Client:
    """One connection, for as many requests as it carries."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(SECONDS)
        self.reader = _Kept(socket.SocketIO(sock, "r"))

    def makefile(self, mode: str) -> _Kept:
        return self.reader

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close so that the server sees a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        io.BufferedReader.close(self.reader)
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, method: str = "GET") -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return response

    def answer(self, method: str = "GET") -> Answer:
        response = self.head(method)
        return Answer(response, response.read())

    def ask(self, target: str = "/", method: str = "GET", body: bytes | None = None) -> Answer:
        self.send(request(target, method, body=body))
        return self.answer(method)

    def at_end(self) -> bool:
        """True when the server has closed the connection, and nothing came before."""
        try:
            return self.reader.read(1) == b""
        except ConnectionResetError:
            return True


class Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.body = body
        self.chunked = response.headers.get("transfer-encoding") == "chunked"

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")


def request(
    target: str = "/",
    method: str = "GET",
    *,
    headers: tuple[str, ...] = (),
    body: bytes | None = None,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: test.example", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


class Context:
    """A Core that serves `app` on a thread until the block ends; `errors` is what it reported."""

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        threads: int = 8,
        root_path: str = "",
        family: int = socket.AF_INET,
        address: Any = ("127.0.0.1", 0),
        expect_errors: bool = False,
        spool_size: int = 0,
        spool_dir: str = "/var/tmp",
        **options: Any,
    ) -> None:
        self._spool = {"spool_size": spool_size, "spool_dir": spool_dir}
        self.errors: list[tuple[BaseException, Any]] = []
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(address)
        self.listener.listen(128)
        self.listener.setblocking(False)
        self.core = Core(**options)
        self._serve(app, threads=threads, root_path=root_path)
        self.failure: BaseException | None = None
        self._expect_errors = expect_errors
        self._clients: list[Client] = []
        self._thread = threading.Thread(target=self._run, name="context")

    def _serve(self, app: Any, *, threads: int, root_path: str) -> None:
        options: dict[str, Any] = {"threads": threads, "root_path": root_path, **self._spool}
        self.core.serve_wsgi(app, on_error=self._on_error, **options)
        self.core.add_listener(self.listener.fileno())

    def _on_error(self, exc: BaseException, environ: Any) -> None:
        self.errors.append((exc, environ))

    def _run(self) -> None:
        try:
            self.core.run_wsgi()
        except BaseException as exc:
            self.failure = exc

    def __enter__(self) -> Context:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        for client in self._clients:
            client.close()
        self.core.drain()
        self._thread.join(SECONDS)
        ended = not self._thread.is_alive()
        if not ended:
            self.core.stop()
            self._thread.join(SECONDS)
        self.listener.close()
        self.core.close()
        if kind is None:
            assert ended, "the context did not drain"
            assert self.failure is None, self.failure
            if not self._expect_errors:
                assert self.errors == []

    def join(self, seconds: float = SECONDS) -> bool:
        """Wait for run_wsgi; True when it has returned."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def connect(self) -> Client:
        client = Client(socket.socket(self.listener.family, socket.SOCK_STREAM))
        client.sock.connect(self.listener.getsockname())
        self._clients.append(client)
        return client

    def ask(self, raw: bytes, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.send(raw)
            return client.answer(method)

    def get(self, target: str = "/") -> Answer:
        return self.ask(request(target))

    def error(self) -> BaseException:
        """The one error that was reported; it is forgotten."""
        [(exc, _)] = self.errors
        self.errors.clear()
        return exc


class Protocols(Context):
    """The same for one protocol of the parallel API."""

    def _serve(self, app: Any, *, threads: int, root_path: str) -> None:
        protocol = describe(app, None)
        self.core.serve_parallel((protocol.as_mapping(),), threads=threads, on_error=self._on_error)
        self.core.add_listener(self.listener.fileno(), raw=protocol.raw)


def plain(
    body: bytes | list[bytes] = b"", status: str = "200 OK", *headers: tuple[str, str]
) -> Any:
    """An application that always gives the same answer."""
    pieces = body if isinstance(body, list) else [body]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(status, list(headers))
        return list(pieces)

    return app


class Held:
    """Calls that stay inside the application until they are let go.

    `arrive` is what the application does; the test waits with `wait_arrived` and then lets go.
    """

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._open = threading.Event()

    def arrive(self) -> None:
        self._arrived.release()
        assert self._open.wait(SECONDS), "nobody let go"

    def wait_arrived(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._arrived.acquire(timeout=SECONDS), "a call did not arrive"

    def let_go(self) -> None:
        self._open.set()

    @contextlib.contextmanager
    def until(self) -> Iterator[Held]:
        try:
            yield self
        finally:
            self.let_go()
