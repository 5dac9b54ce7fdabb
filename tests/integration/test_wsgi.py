"""PEP 3333, clause by clause, on raw sockets; `tests/apps/wsgi_live.py` is the stage."""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
import wsgiref.validate
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serving

live = serving.load_app("wsgi_live")
Context, request, plain = live.Context, live.request, live.plain

Start = Callable[..., Any]
Environ = dict[str, Any]


def dump(environ: Environ, start_response: Start) -> list[bytes]:
    """What there is in the environ, as JSON; what is not text by its repr."""
    start_response("200 OK", [("Content-Type", "application/json")])
    text = {k: v if isinstance(v, str | bool) else repr(v) for k, v in environ.items()}
    return [json.dumps(text).encode()]


def seen(raw: bytes, method: str = "GET", **options: Any) -> Environ:
    with Context(dump, **options) as context:
        return json.loads(context.ask(raw, method).body)


# ---- environ ----


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b?x=1&y=2", "/a/b", "x=1&y=2"),
        ("/a%20b%2Fc", "/a b/c", ""),
        ("/%C3%A4", "\xc3\xa4", ""),
        ("/a%zz%4", "/a%zz%4", ""),
        ("/a?", "/a", ""),
        ("/a?b?c%20d", "/a", "b?c%20d"),
        ("/" + "x" * 2000 + "%41", "/" + "x" * 2000 + "A", ""),
        ("http://other.example:81/p?q", "/p", "q"),
        ("http://other.example", "/", ""),
    ],
)
def test_target(target: str, path: str, query: str) -> None:
    environ = seen(request(target))
    assert environ["PATH_INFO"] == (path if path.startswith("/") else "/" + path)
    assert environ["QUERY_STRING"] == query
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == target
    assert environ["SCRIPT_NAME"] == ""


def test_constants() -> None:
    environ = seen(request("/"))
    assert environ["wsgi.version"] == "(1, 0)"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.input_terminated"] is True
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["SERVER_NAME"] == environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["SERVER_PORT"].isdigit()
    assert environ["REMOTE_PORT"].isdigit()
    assert "CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert seen(request("/"), threads=1)["wsgi.multithread"] is False


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_method(method: str) -> None:
    assert seen(request("/", method), method)["REQUEST_METHOD"] == method


def test_headers() -> None:
    environ = seen(
        request(
            headers=(
                "Accept: a",
                "X-One: 1",
                "accept: b",
                "x-one: 2",
                "Cookie: a=1",
                "Cookie: b=2",
                "Content-Type: text/x",
                "Proxy: http://evil.example",
                "X_One: 3",
                "Content_Length: 7",
                "X-Latin: \xe4",
            )
        )
    )
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_X_ONE"] == "1,2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["CONTENT_TYPE"] == "text/x"
    assert environ["HTTP_HOST"] == "test.example"
    assert environ["HTTP_X_LATIN"] == "\xe4"
    assert "HTTP_PROXY" not in environ
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_absolute_form_replaces_host() -> None:
    assert seen(request("http://other.example:81/"))["HTTP_HOST"] == "other.example:81"


def test_asterisk_form() -> None:
    assert seen(request("*", "OPTIONS"), "OPTIONS")["PATH_INFO"] == "*"


def test_http_1_0_without_host() -> None:
    environ = seen(b"GET / HTTP/1.0\r\n\r\n")
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in environ


def test_content_headers() -> None:
    environ = seen(request("/", "POST", headers=("Content-Type: a/b",), body=b"12345"), "POST")
    assert environ["CONTENT_LENGTH"] == "5"
    assert environ["CONTENT_TYPE"] == "a/b"


@pytest.mark.parametrize(
    ("target", "path"),
    [("/api/x", "/x"), ("/api", ""), ("/apix", "/apix"), ("/x", "/x"), ("/api/", "/")],
)
def test_root_path(target: str, path: str) -> None:
    environ = seen(request(target), root_path="/api")
    assert environ["SCRIPT_NAME"] == "/api"
    assert environ["PATH_INFO"] == path


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("a.example", "a.example", "80"),
        ("a.example:81", "a.example", "81"),
        ("[::1]", "[::1]", "80"),
    ],
)
def test_unix_socket(tmp_path: Path, host: str, name: str, port: str) -> None:
    raw = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    environ = seen(raw, family=socket.AF_UNIX, address=str(tmp_path / "s"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
    assert environ["REMOTE_ADDR"] == environ["REMOTE_PORT"] == ""


def test_ipv6() -> None:
    environ = seen(request(), family=socket.AF_INET6, address=("::1", 0))
    assert environ["SERVER_NAME"] == environ["REMOTE_ADDR"] == "::1"


def test_environ_is_of_this_request_alone() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        before = "mine" in environ or "HTTP_X" in environ
        environ["mine"] = 1
        environ["wsgi.url_scheme"] = "x"
        assert type(environ) is dict
        start_response("200 OK", [])
        return [str(before).encode()]

    with Context(app) as context, context.connect() as client:
        client.send(request(headers=("X: 1",)))
        assert client.answer().body == b"True"
        assert client.ask().body == b"False"


def test_errors_stream_is_stderr() -> None:
    streams = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        streams.append(environ["wsgi.errors"])
        start_response("200 OK", [])
        return []

    stderr = sys.stderr
    with Context(app) as context:
        context.get()
    assert streams == [stderr]


# ---- wsgiref.validate ----


def reading(environ: Environ, start_response: Start) -> Iterator[bytes]:
    stream = environ["wsgi.input"]
    parts = [stream.read(3), stream.readline(), *stream.readlines(), *stream, stream.read(10)]
    environ["wsgi.errors"].flush()
    body = b"|".join(part for part in parts if part)
    if environ["PATH_INFO"] == "/empty":
        start_response("204 No Content", [])
        yield b""
        return
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"got "
    yield b""
    yield body


@pytest.mark.parametrize("body", [None, b"", b"abcdef\nghi\njkl", b"x\n" * 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_validator(body: bytes | None, chunked: bool) -> None:
    raw = request("/p?q", "POST", body=body)
    if chunked:
        pieces = (body or b"")[:100], (body or b"")[100:]
        raw = request("/p?q", "POST", headers=("Transfer-Encoding: chunked",))
        raw += b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"
    with Context(wsgiref.validate.validator(reading)) as context:
        answer = context.ask(raw, "POST")
    assert answer.status == 200
    assert answer.body.replace(b"|", b"") == b"got " + (body or b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/", "/empty"])
def test_validator_without_body(method: str, target: str) -> None:
    with Context(wsgiref.validate.validator(reading)) as context:
        answer = context.ask(request(target, method), method)
    assert answer.status == (204 if target == "/empty" else 200)


# ---- start_response ----


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("200", []), ValueError),
        (("2000 OK", []), ValueError),
        (("100 Continue", []), ValueError),
        (("20x OK", []), ValueError),
        (("200 O\r\nK", []), ValueError),
        (("200 \u20ac", []), ValueError),
        ((b"200 OK", []), TypeError),
        ((200, []), TypeError),
        (("200 OK", ()), TypeError),
        (("200 OK", {}), TypeError),
        (("200 OK", [["A", "b"]]), TypeError),
        (("200 OK", [("A", "b", "c")]), TypeError),
        (("200 OK", [(b"A", "b")]), TypeError),
        (("200 OK", [("A", b"b")]), TypeError),
        (("200 OK", [("A", None)]), TypeError),
        (("200 OK", [("A", "\u20ac")]), ValueError),
        (("200 OK", [("A", "b\r\nC: d")]), ValueError),
        (("200 OK", [("A", "b\0")]), ValueError),
        (("200 OK", [("A B", "c")]), ValueError),
        (("200 OK", [("A:", "c")]), ValueError),
        (("200 OK", [("", "c")]), ValueError),
        (("200 OK", [("Content-Length", "-1")]), ValueError),
        (("200 OK", [("Content-Length", "1"), ("content-length", "1")]), ValueError),
        (("200 OK", [("Connection", "close")]), AssertionError),
        (("200 OK", [("transfer-encoding", "chunked")]), AssertionError),
        (("200 OK", [("Upgrade", "x")]), AssertionError),
        (("200 OK", [], 1), TypeError),
        (("200 OK", [], (None, None)), TypeError),
        (("200 OK",), TypeError),
        (("200 OK", [], None, None), TypeError),
        ((), TypeError),
    ],
)
def test_start_response_refuses(args: tuple[Any, ...], error: type[Exception]) -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response(*args)
        return [b"unreachable"]

    with Context(app) as context:
        assert context.get().status == 500
        assert type(context.error()) is error


def test_start_response_keywords() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        with pytest.raises(TypeError):
            start_response("200 OK", [], other=None)
        start_response("200 OK", [], exc_info=None)
        return []

    with Context(app) as context:
        assert context.get().status == 200


def test_head_as_the_application_says() -> None:
    names = [(f"X-{i}", f"\xe4 {i}") for i in range(60)]
    with Context(plain(b"x", "299 What Ever", *names)) as context:
        answer = context.get()
    assert (answer.status, answer.reason) == (299, "What Ever")
    assert [(k, v) for k, v in answer.headers.items() if k.startswith("X-")] == names


def test_headers_are_taken_at_the_call() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        headers = [("A", "1")]
        start_response("200 OK", headers)
        headers[0] = ("A", "2")
        headers.append(("B", "3"))
        return [b"x"]

    with Context(app) as context:
        answer = context.get()
    assert answer.headers["A"] == "1"
    assert "B" not in answer.headers


def test_twice_without_exc_info() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        start_response("201 Created", [])
        return []

    with Context(app) as context:
        assert context.get().status == 500
        assert isinstance(context.error(), AssertionError)


def test_never_called() -> None:
    with Context(lambda environ, start_response: [b"x"]) as context:
        assert context.get().status == 500
        assert isinstance(context.error(), AssertionError)


def failing(environ: Environ, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [("A", "1")])
    if environ["PATH_INFO"] == "/late":
        yield b"begun"
    try:
        raise KeyError(serving.EXPECTED)
    except KeyError:
        start_response("503 Sorry", [("B", "2")], sys.exc_info())
    yield b"sorry"


def test_exc_info_before_the_head_was_sent() -> None:
    with Context(failing) as context:
        answer = context.get("/early")
    assert (answer.status, answer.body) == (503, b"sorry")
    assert "A" not in answer.headers
    assert answer.headers["B"] == "2"


def test_exc_info_after_the_head_was_sent() -> None:
    with Context(failing) as context, context.connect() as client:
        client.send(request("/late"))
        response = client.head()
        with pytest.raises(Exception, match="IncompleteRead"):
            response.read()
        assert response.status == 200
        assert client.at_end()
        error = context.error()
    assert isinstance(error, KeyError)
    assert error.__traceback__ is not None


def test_start_response_after_the_end() -> None:
    kept = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        kept.append((start_response, start_response("200 OK", []), environ["wsgi.input"]))
        return [b"x"]

    with Context(app) as context:
        context.ask(request("/", "POST", body=b"12"), "POST")
        context.ask(request("/", "POST", body=b"1" * 100_000), "POST")
        for start_response, write, _ in kept:
            with pytest.raises(RuntimeError):
                start_response("200 OK", [])
            with pytest.raises(OSError, match="gone"):
                write(b"more")
        assert kept[0][2].read() == b"12"
        with pytest.raises(OSError, match="body"):
            kept[1][2].read()


# ---- bodies of responses ----


class One:
    """len() of 1, and nothing that a list has."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"only"])


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ([b"one"], b"one"),
        ((b"one",), b"one"),
        ([], b""),
        ((), b""),
        ([b""], b""),
        ([b"a", b"", b"b"], b"ab"),
        ((b"a",) * 1000, b"a" * 1000),
        (One(), b"only"),
        ([b"x" * 300_000], b"x" * 300_000),
    ],
)
def test_known_length(result: Any, body: bytes) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return result

    with Context(app) as context, context.connect() as client:
        for _ in range(2):
            answer = client.ask()
            assert answer.body == body
            assert answer.headers["content-length"] == str(len(body))
            assert not answer.chunked


@pytest.mark.parametrize(
    "result",
    [
        lambda: (p for p in [b"", b"ab", b"", b"c"]),
        lambda: iter([b"abc"]),
        lambda: [b"a" * 40_000, b"b" * 40_000],
        lambda: {b"abc": 1, b"d": 2},
        lambda: type("List", (list,), {})([b"a", b"b"]),
    ],
)
def test_chunked(result: Callable[[], Iterable[bytes]]) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return result()

    with Context(app) as context, context.connect() as client:
        for _ in range(2):
            answer = client.ask()
            assert answer.body == b"".join(result())
            assert answer.chunked


@pytest.mark.parametrize("piece", ["text", 1, None, bytearray(b"x")])
@pytest.mark.parametrize("wrap", [lambda p: [p], lambda p: iter([p]), lambda p: [b"", p]])
def test_piece_of_wrong_type(piece: Any, wrap: Callable[[Any], Any]) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return wrap(piece)

    with Context(app) as context:
        assert context.get().status == 500
        assert isinstance(context.error(), TypeError)


def test_result_that_is_not_iterable() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])

    with Context(app) as context:
        assert context.get().status == 500
        assert isinstance(context.error(), TypeError)


def test_head_goes_out_with_the_first_piece() -> None:
    proceed = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", [])
        yield b""
        yield b"first"
        assert proceed.wait(live.SECONDS)
        yield b"second"

    with Context(app) as context, context.connect() as client:
        client.send(request())
        response = client.head()
        assert response.status == 201
        assert response.read(5) == b"first"
        proceed.set()
        assert response.read() == b"second"


@pytest.mark.parametrize("single", [True, False])
def test_longer_than_content_length(single: bool) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"1234567"] if single else iter([b"123", b"4567", b"8"])

    with Context(app, expect_errors=True) as context, context.connect() as client:
        assert client.ask().body == b"12345"
        assert client.ask().body == b"12345"
    assert [type(exc) for exc, _ in context.errors] == [ValueError, ValueError]


def test_shorter_than_content_length() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"123"] if environ["PATH_INFO"] == "/single" else iter([b"12", b"3"])

    with Context(app) as context:
        assert context.get("/single").status == 500
        assert isinstance(context.error(), ValueError)
        with context.connect() as client:
            client.send(request())
            with pytest.raises(Exception, match="IncompleteRead"):
                client.answer()
            assert client.at_end()
        assert isinstance(context.error(), ValueError)


def test_content_length_of_the_application() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "6")])
        return iter([b"123", b"456"])

    with Context(app) as context, context.connect() as client:
        for _ in range(2):
            answer = client.ask()
            assert answer.body == b"123456"
            assert not answer.chunked


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("stream", [False, True])
def test_without_body(status: str, method: str, stream: bool) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response(status, [("ETag", '"x"')])
        return iter([b"bo", b"dy"]) if stream else [b"body"]

    with Context(app) as context, context.connect() as client:
        for _ in range(2):
            answer = client.ask(method=method)
            assert answer.status == int(status[:3])
            assert answer.body == (b"body" if method == "GET" and status == "200 OK" else b"")


def test_head_with_the_length_of_get() -> None:
    with Context(plain(b"", "200 OK", ("Content-Length", "12"))) as context:
        answer = context.ask(request(method="HEAD"), "HEAD")
    assert answer.headers["content-length"] == "12"


def test_http_1_0() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return [b"body"] if environ["PATH_INFO"] == "/single" else iter([b"bo", b"dy"])

    with Context(app) as context:
        for target in ("/single", "/stream"):
            with context.connect() as client:
                client.send(request(target, version="1.0"))
                answer = client.answer()
                assert answer.body == b"body"
                assert not answer.chunked
                assert client.at_end()


# ---- write() ----


@pytest.mark.parametrize("result", [[], [b"end"], [b"en", b"d"], (b"end",)])
def test_write(result: Any) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        write = start_response("200 OK", [])
        assert callable(write)
        write(b"")
        write(b"first,")
        write(b"second,")
        return result

    with Context(app) as context, context.connect() as client:
        for _ in range(2):
            assert client.ask().body == b"first,second," + b"".join(result)


@pytest.mark.parametrize("args", [(), ("text",), (b"a", b"b"), (None,)])
def test_write_refuses(args: tuple[Any, ...]) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])(*args)
        return []

    with Context(app) as context:
        assert context.get().status == 500
        assert isinstance(context.error(), TypeError)


# ---- close() ----


class Closing:
    def __init__(self, pieces: Iterable[Any], log: list[str]) -> None:
        self.pieces = iter(pieces)
        self.log = log
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self.pieces)
        if isinstance(piece, Exception):
            raise piece
        return piece  # type: ignore[no-any-return]

    def close(self) -> None:
        self.log.append("close")
        self.closed.set()
        if "bad" in self.log:
            raise RuntimeError(serving.EXPECTED)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"a", b"b"],
        [],
        [RuntimeError(serving.EXPECTED)],
        [b"a", RuntimeError(serving.EXPECTED)],
        ["text"],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_close_is_called_once(pieces: list[Any], method: str) -> None:
    log: list[str] = []

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return Closing(pieces, log)

    with Context(app, expect_errors=True) as context:
        with context.connect() as client:
            client.send(request(method=method))
            client.sock.shutdown(socket.SHUT_WR)
            while client.sock.recv(1000):
                pass
        good = all(isinstance(piece, bytes) for piece in pieces)
    assert log == ["close"]
    assert len(context.errors) == (0 if good else 1)


def test_close_that_raises() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        return Closing([b"a"], ["bad"])

    with Context(app) as context, context.connect() as client:
        assert client.ask().body == b"a"
        assert client.ask().body == b"a"
        assert [str(exc) for exc, _ in context.errors] == [serving.EXPECTED] * 2
        context.errors.clear()


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 10_000


def test_close_when_the_peer_goes() -> None:
    log: list[str] = []
    made: list[Closing] = []

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        made.append(Closing(endless(), log))
        return made[0]

    with Context(app) as context:
        client = context.connect()
        client.send(request())
        assert client.head().read(10) == b"x" * 10
        client.reset()
        assert made[0].closed.wait(live.SECONDS)
    assert log == ["close"]


def test_write_when_the_peer_goes() -> None:
    raised: list[BaseException] = []
    done = threading.Event()

    def app(environ: Environ, start_response: Start) -> Any:
        write = start_response("200 OK", [])
        try:
            for piece in endless():
                write(piece)
        except OSError as exc:
            raised.append(exc)
            raise
        finally:
            done.set()

    with Context(app) as context:
        client = context.connect()
        client.send(request())
        client.head()
        client.reset()
        assert done.wait(live.SECONDS)
    assert len(raised) == 1  # and nothing was reported: it is not the application's error


# ---- back-pressure ----


def test_a_slow_reader_stops_the_iteration() -> None:
    produced = []
    held = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        for i in range(3000):
            produced.append(i)
            if i == 2:
                held.set()
            yield b"x" * 10_000

    with Context(app) as context, context.connect() as client:
        client.send(request())
        response = client.head()
        assert held.wait(live.SECONDS)
        serving.wait_until(lambda: _still(produced), what="production stops")
        assert len(produced) < 2900
        assert len(response.read()) == 30_000_000
    assert len(produced) == 3000


def _still(produced: list[int]) -> bool:
    before = len(produced)
    threading.Event().wait(0.05)
    return len(produced) == before


# ---- file_wrapper ----


class Small:
    """A file-like object without a descriptor, a position, or close()."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.data.read(min(size, 1000))


def wrapping(make: Callable[[], Any], *headers: tuple[str, str], inside: bool = False) -> Any:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", list(headers))
        wrapper = environ["wsgi.file_wrapper"](make(), 5000)
        return (piece for piece in wrapper) if inside else wrapper

    return app


@pytest.mark.parametrize("inside", [False, True])
def test_file_wrapper(tmp_path: Path, inside: bool) -> None:
    path = tmp_path / "file"
    data = bytes(range(256)) * 1000
    path.write_bytes(data)
    files = []

    def opened() -> Any:
        file = path.open("rb")
        file.read(10)  # buffered: the descriptor is further than the position
        files.append(file)
        return file

    with Context(wrapping(opened, inside=inside)) as context:
        assert context.get().body == data[10:]
    assert inside or files[0].closed
    for file in files:
        file.close()


def test_file_wrapper_of_other_objects() -> None:
    with Context(wrapping(lambda: Small(b"abc" * 50_000))) as context:
        assert context.get().body == b"abc" * 50_000
    with Context(wrapping(lambda: io.BytesIO(b""))) as context:
        assert context.get().body == b""


def test_file_wrapper_ends_at_content_length() -> None:
    made = []

    def make() -> io.BytesIO:
        made.append(io.BytesIO(b"abcdefghij"))
        return made[0]

    with Context(wrapping(make, ("Content-Length", "4"))) as context, context.connect() as client:
        assert client.ask().body == b"abcd"
    assert made[0].closed


def test_file_wrapper_refuses() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        wrapper = environ["wsgi.file_wrapper"]
        with pytest.raises(TypeError):
            wrapper()
        with pytest.raises(ValueError, match="block size"):
            wrapper(io.BytesIO(), 0)
        start_response("200 OK", [])
        assert wrapper(io.BytesIO(b"x")).blksize == 8192
        return wrapper(io.StringIO("text"))

    with Context(app) as context:
        assert context.get().status == 500
        assert isinstance(context.error(), TypeError)


# ---- wsgi.input ----

LINES = b"".join(b"line %d\n" % i * (1 + i % 3) for i in range(5000)) + b"no end"


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


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
        client.send(request("/", "POST", headers=("Content-Length: 100000",)) + b"x" * 10)
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


def test_body_that_stalls() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        environ["wsgi.input"].read()
        return []

    with Context(app, timeout_body_idle=0.2) as context:
        for length in (100, 1_000_000):  # awaited before the call, and within it
            with context.connect() as client:
                client.send(request("/", "POST", headers=(f"Content-Length: {length}",)) + b"x")
                assert client.answer("POST").status == 408


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


# ---- the rest ----


def test_exceptions() -> None:
    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/before":
            raise KeyError(serving.EXPECTED)
        start_response("200 OK", [])

        def pieces() -> Iterator[bytes]:
            yield b"x" * (1 if environ["PATH_INFO"] == "/after" else 0)
            raise KeyError(serving.EXPECTED)

        return pieces()

    with Context(app) as context:
        for target in ("/before", "/between"):
            assert context.get(target).status == 500
            environ = context.errors[0][1]
            assert environ["PATH_INFO"] == target
            assert isinstance(context.error(), KeyError)
        with context.connect() as client:
            client.send(request("/after"))
            with pytest.raises(Exception, match="IncompleteRead"):
                client.answer()
            assert client.at_end()
        assert isinstance(context.error(), KeyError)
        assert context.get("/before").status == 500
        context.error()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_end_programs(kind: type[BaseException]) -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        if environ["PATH_INFO"] == "/bad":
            raise kind(serving.EXPECTED)
        start_response("200 OK", [])
        return []

    with Context(app) as context:
        assert context.get("/bad").status == 500
        assert isinstance(context.error(), kind)
        assert context.get().status == 200


def test_pipelining() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [])
        body = environ["PATH_INFO"].encode() + environ["wsgi.input"].read()
        return [body] if len(body) % 2 else iter([body])

    with Context(app) as context, context.connect() as client:
        raw = [request(f"/{i}", "POST", body=b"b" * i) for i in range(100)]
        client.send(b"".join(raw))
        for i in range(100):
            assert client.answer("POST").body == b"/%d" % i + b"b" * i


def test_access_log() -> None:
    lines: list[tuple[Any, ...]] = []

    def app(environ: Environ, start_response: Start) -> Any:
        if environ["PATH_INFO"] == "/bad":
            raise KeyError(serving.EXPECTED)
        start_response("201 Created", [])
        return []

    with Context(app, access_log=lambda *args: lines.append(args), expect_errors=True) as context:
        context.get("/p?q=%20")
        context.ask(request("/bad", version="1.0"))
        context.ask(request("/x", "POST", body=b"1"), "POST")
    assert [line[1:] for line in lines] == [
        ("GET", "/p?q=%20", "1.1", 201),
        ("GET", "/bad", "1.0", 500),
        ("POST", "/x", "1.1", 201),
    ]
    assert all(line[0].startswith("127.0.0.1:") for line in lines)


def test_misuse_of_the_core() -> None:
    core = live.Core()
    with pytest.raises(RuntimeError, match="serve_wsgi"):
        core.run_wsgi()
    for threads in (0, -1, 100_000):
        with pytest.raises(ValueError, match="threads"):
            core.serve_wsgi(dump, threads=threads)
    core.serve_wsgi(dump)
    with pytest.raises(RuntimeError, match="already"):
        core.serve_wsgi(dump)
    core.close()
    with pytest.raises(RuntimeError, match="closed"):
        core.run_wsgi()
