"""PEP 3333: the bodies of responses, write(), close(), file_wrapper, back-pressure."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serving

live = serving.load_app("wsgi_live")
Context, request, plain = live.Context, live.request, live.plain

Start = Callable[..., Any]
Environ = dict[str, Any]


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


def test_longer_than_content_length() -> None:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        return iter([b"123", b"4567", b"8"])

    with Context(app, expect_errors=True) as context, context.connect() as client:
        assert client.ask().body == b"12345"
        assert client.ask().body == b"12345"
    assert [type(exc) for exc, _ in context.errors] == [ValueError, ValueError]


@pytest.mark.parametrize("how", ["single", "pieces", "write"])
def test_a_first_piece_longer_than_content_length(how: str) -> None:
    """Nothing has been sent yet, so the answer is a 500 as a whole."""

    def app(environ: Environ, start_response: Start) -> Any:
        write = start_response("200 OK", [("Content-Length", "5")])
        if how == "write":
            write(b"1234567")
        return [b"1234567"] if how == "single" else iter([b"1234567", b"8"])

    with Context(app) as context:
        answer = context.get()
        assert (answer.status, b"123" in answer.body) == (500, False)
        assert "longer than its Content-Length" in str(context.error())


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


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_stream_with_nothing_to_send_learns_that_the_peer_has_gone(how: str) -> None:
    closed = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b"first"
            while True:
                closed.wait(0.005)  # for the loop to go to another thread
                yield b""
        finally:
            closed.set()

    with Context(app) as context:
        client = context.connect()
        client.send(request())
        assert client.head().read(5) == b"first"
        client.reset() if how == "reset" else client.sock.shutdown(socket.SHUT_RDWR)
        assert closed.wait(60)


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


@pytest.mark.slow
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
