"""PEP 3333: wsgi.input, whatever way the body comes."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import serving

live = serving.load_app("wsgi_live")
Context, request, plain = live.Context, live.request, live.plain

Start = Callable[..., Any]
Environ = dict[str, Any]


# ---- wsgi.input ----

LINES = b"".join(b"line %d\n" % i * (1 + i % 3) for i in range(5000)) + b"no end"


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["length", "chunked", "pieces"])
@pytest.mark.parametrize("data", [b"", b"x", b"a\nb\n", LINES, LINES * 10], ids=len)
def test_input(how: str, data: bytes) -> None:
    def readers(stream: Any) -> dict[str, Callable[[], bytes]]:
        return {
            "/read": stream.read,
            "/read-negative": lambda: stream.read(-1),
            "/read-none": lambda: stream.read(None),
            "/read-large": lambda: stream.read(1 << 40),
            "/read-small": lambda: b"".join(iter(lambda: stream.read(777), b"")),
            "/iterate": lambda: b"".join(stream),
            "/readline": lambda: b"".join(iter(stream.readline, b"")),
            "/readline-size": lambda: b"".join(iter(lambda: stream.readline(5), b"")),
            "/readlines": lambda: b"".join(stream.readlines()),
            "/readlines-hint": lambda: b"".join(
                b"".join(part) for part in iter(lambda: stream.readlines(100), [])
            ),
            "/mixed": lambda: stream.read(2) + stream.readline() + stream.read(0) + stream.read(),
        }

    targets = list(readers(io.BytesIO()))

    def app(environ: Environ, start_response: Start) -> Any:
        stream = environ["wsgi.input"]
        body = readers(stream)[environ["PATH_INFO"]]()
        assert stream.read() == stream.read(5) == stream.readline() == b""
        assert stream.readlines() == list(stream) == []
        start_response("200 OK", [])
        return [body]

    with Context(app) as context, context.connect() as client:
        for target in targets:
            if how == "length":
                client.send(request(target, "POST", body=data))
            elif how == "chunked":
                head = request(target, "POST", headers=("Transfer-Encoding: chunked",))
                client.send(head + chunked(data, 4000))
            else:
                head = request(target, "POST", headers=(f"Content-Length: {len(data)}",))
                client.send(head)
                for i in range(0, len(data), 50_000):
                    client.send(data[i : i + 50_000])
            assert client.answer().body == data, target


def test_input_lines_are_lines() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        stream = environ["wsgi.input"]
        assert stream.readline() == b"one\n"
        assert stream.readline(2) == b"tw"
        assert stream.readline(0) == b""
        assert next(stream) == b"o\n"
        assert stream.readlines(1) == [b"\n"]
        assert list(stream) == [b"three"]
        start_response("200 OK", [])
        return []

    with Context(app) as context:
        raw = request("/", "POST", body=b"one\ntwo\n\nthree")
        assert context.ask(raw, "POST").status == 200


@pytest.mark.parametrize(
    "call",
    [
        lambda stream: stream.read("1"),
        lambda stream: stream.read(1, 2),
        lambda stream: stream.readline(1.5),
        lambda stream: stream.readlines(1, 2),
        lambda stream: type(stream)(),
    ],
)
def test_input_refuses(call: Callable[[Any], Any]) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        with pytest.raises(TypeError):
            call(environ["wsgi.input"])
        start_response("200 OK", [])
        return []

    with Context(app) as context:
        assert context.get().status == 200


@pytest.mark.parametrize("size", [10, 200_000])
def test_unread_body(size: int) -> None:
    with Context(plain(b"no thanks", "413 Too Large")) as context:
        answer = context.ask(request("/", "POST", body=b"x" * size), "POST")
    assert (answer.status, answer.body) == (413, b"no thanks")


@pytest.mark.parametrize("reads", [True, False])
def test_expect_continue(reads: bool) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        body = environ["wsgi.input"].read() if reads else b"refused"
        start_response("200 OK" if reads else "403 Forbidden", [])
        return [body]

    with Context(app) as context, context.connect() as client:
        headers = ("Expect: 100-continue", "Content-Length: 5")
        client.send(request("/", "POST", headers=headers))
        line = client.reader.readline()
        if not reads:
            assert line.startswith(b"HTTP/1.1 403")
            return
        assert line == b"HTTP/1.1 100 Continue\r\n"
        assert client.reader.readline() == b"\r\n"
        client.send(b"hello")
        assert client.answer("POST").body == b"hello"


@pytest.mark.parametrize("how", ["reset", "close"])
def test_disconnect_while_reading(how: str) -> None:
    raised: list[BaseException] = []
    reading, done = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Start) -> Any:
        try:
            environ["wsgi.input"].read(1)
            reading.set()
            environ["wsgi.input"].read()
        except OSError as exc:
            raised.append(exc)
            raise
        finally:
            done.set()

    with Context(app) as context:
        client = context.connect()
        client.send(request("/", "POST", headers=("Content-Length: 2000000",)) + b"x" * 10)
        assert reading.wait(live.SECONDS)
        client.reset() if how == "reset" else client.sock.shutdown(socket.SHUT_RDWR)
        assert done.wait(live.SECONDS)
    assert len(raised) == 1


def test_malformed_body() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        environ["wsgi.input"].read()
        return []

    with Context(app) as context, context.connect() as client:
        client.send(request("/", "POST", headers=("Transfer-Encoding: chunked",)) + b"zz\r\n")
        assert client.answer("POST").status == 400
        assert client.at_end()


@pytest.mark.slow
def test_body_that_stalls() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        environ["wsgi.input"].read()
        return []

    with Context(app, timeout_body_idle=0.2) as context:
        for length in (100, 2_000_000):  # awaited before the call, and within it
            with context.connect() as client:
                client.send(request("/", "POST", headers=(f"Content-Length: {length}",)) + b"x")
                assert client.answer("POST").status == 408


@pytest.mark.parametrize("size", [1_000_000, 3_000_000])
def test_a_chunked_body_beyond_what_is_awaited(size: int) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        known = environ.get("CONTENT_LENGTH")
        start_response("200 OK", [("X-Known", str(known))])
        return [environ["wsgi.input"].read()]

    data = bytes(range(250)) * (size // 250)
    with Context(app) as context, context.connect() as client:
        client.send(request("/", "POST", headers=("Transfer-Encoding: chunked",)))
        sender = threading.Thread(target=client.send, args=(chunked(data, 40_000),))
        sender.start()
        answer = client.answer("POST")
        sender.join()
    assert answer.body == data
    assert answer.headers["x-known"] == (str(size) if size == 1_000_000 else "None")


class WrappedError(Exception):
    """As UnreadablePostError of Django."""


@pytest.mark.parametrize("how", ["wrapped", "flask"])
def test_an_aborted_upload_is_quiet(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """An application that does nothing about it makes no error of it, in its log or in ours."""
    reading, done = threading.Event(), threading.Event()

    def wrapped(environ: Environ, start_response: Start) -> Any:
        try:
            reading.set()
            environ["wsgi.input"].read()
        except OSError as exc:
            raise WrappedError from exc
        finally:
            done.set()

    with Context(wrapped if how == "wrapped" else flask_upload(reading, done)) as context:
        client = context.connect()
        kind = "Content-Type: application/x-www-form-urlencoded"
        client.send(request("/", "POST", headers=(kind, "Content-Length: 2000000")) + b"a=1")
        assert reading.wait(60)
        client.reset()
        assert done.wait(60)
    assert [record.getMessage() for record in caplog.records] == []


def flask_upload(reading: threading.Event, done: threading.Event) -> Any:
    serving.require("flask")
    import flask

    app = flask.Flask(__name__)

    @app.post("/")
    def upload() -> str:
        reading.set()
        return str(len(flask.request.form))

    @app.after_request
    def after(response: Any) -> Any:
        assert response.status_code == 400
        return response

    @app.teardown_request
    def end(exc: BaseException | None) -> None:
        done.set()

    return app


def test_incomplete_small_body_is_not_shown_to_the_application() -> None:
    called = []

    def app(environ: Environ, start_response: Start) -> Any:
        called.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    with Context(app) as context:
        client = context.connect()
        client.send(request("/cut", "POST", headers=("Content-Length: 10",)) + b"x")
        client.reset()
        context.get("/whole")
    assert called == ["/whole"]
