"""PEP 3333, clause by clause, on raw sockets; `tests/apps/wsgi_live.py` is the stage."""

from __future__ import annotations

import json
import socket
import sys
import wsgiref.validate
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serving

from ppserver.config import Config, table
from ppserver.context.server import make_core

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


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_chunked_body_that_has_wholly_arrived(size: int) -> None:
    raw = request("/", "POST", headers=("Transfer-Encoding: chunked",))
    environ = seen(raw + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size), "POST")
    assert environ["CONTENT_LENGTH"] == str(size)
    assert "HTTP_TRANSFER_ENCODING" not in environ


@pytest.mark.parametrize(
    ("target", "path"),
    [("/api/x", "/x"), ("/api", ""), ("/apix", "/apix"), ("/x", "/x"), ("/api/", "/")],
)
def test_root_path(target: str, path: str) -> None:
    environ = seen(request(target), root_path="/api")
    assert environ["SCRIPT_NAME"] == "/api"
    assert environ["PATH_INFO"] == path


def test_root_path_is_bytes_as_latin_1() -> None:
    environ = seen(request("/caf%C3%A9/x"), root_path="/caf\u00e9")
    assert environ["SCRIPT_NAME"].encode("latin-1") == "/caf\u00e9".encode()
    assert environ["PATH_INFO"] == "/x"


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


HOP_BY_HOP = (
    *("Connection", "keep-alive", "Proxy-Authenticate", "proxy-authorization", "TE", "trailerS"),
    *("transfer-encoding", "Transfer-Encoding", "upgradE"),
)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("20", []), ValueError),
        (("2000 OK", []), ValueError),
        (("200OK", []), ValueError),
        (("100 Continue", []), ValueError),
        (("20x OK", []), ValueError),
        (("200 O\r\nK", []), ValueError),
        (("200 \u20ac", []), ValueError),
        ((b"200 OK", []), TypeError),
        ((200, []), TypeError),
        (("200 OK", iter(())), TypeError),
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
        (("200 OK", [("content\rlength", "1")]), ValueError),
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


def test_hop_by_hop_headers_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """PEP 3333 forbids them; frameworks set them all the same, and servers drop them."""
    fields = [(name, "x") for name in HOP_BY_HOP]
    with Context(plain(b"y", "200 OK", ("A", "b"), *fields, ("C", "d"))) as context:
        for _ in range(2):
            answer = context.get()
            assert (answer.status, answer.body) == (200, b"y")
            assert [item for item in answer.headers.items() if item[1] in "bxd"] == [
                ("A", "b"),
                ("C", "d"),
            ]
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith("the application sets Connection, a header that belongs to")


def test_the_application_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with Context(plain(b"y", "200 OK", ("Connection", "Close"))) as context:
        client = context.connect()
        assert client.ask().body == b"y"
        assert client.at_end()
    assert caplog.records == []


@pytest.mark.parametrize(("status", "reason"), [("200", "OK"), ("200 ", ""), ("299", "")])
def test_lenient_start_response(status: str, reason: str) -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response(status, (("A", "b"),))
        return []

    with Context(app) as context:
        answer = context.get()
    assert (answer.status, answer.reason) == (int(status), reason)
    assert answer.headers["a"] == "b"


def test_names_that_are_nearly_hop_by_hop() -> None:
    names = [change for name in HOP_BY_HOP for change in (f"{name}s", f"x{name}", name[:-1])]
    names += ["content_length", "content-lengths"]
    fields = [(name, "x") for name in names if name.lower() not in ("trailers", "t")]
    with Context(plain(b"y", "200 OK", *fields)) as context:
        answer = context.get()
    assert [(k, v) for k, v in answer.headers.items() if v == "x"] == fields


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


def ended(start_response: Start) -> bool:
    try:
        start_response("200 OK", [])
    except RuntimeError as error:
        return "after the request ended" in str(error)
    except AssertionError:  # it may not be called twice
        return False
    raise AssertionError("it was taken")


def test_start_response_after_the_end() -> None:
    kept = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        kept.append((start_response, start_response("200 OK", []), environ["wsgi.input"]))
        if environ["CONTENT_LENGTH"] != "2":
            # So much that the server takes the rest, and the client comes to read its answer.
            environ["wsgi.input"].read(1_500_000)
        return [b"x"]

    with Context(app) as context:
        context.ask(request("/", "POST", body=b"12"), "POST")
        context.ask(request("/", "POST", body=b"1" * 2_000_000), "POST")
        for start_response, write, _ in kept:
            # The client may have its answer before the call is over.
            serving.wait_until(lambda call=start_response: ended(call), what="the calls' ends")
            with pytest.raises(OSError, match="gone"):
                write(b"more")
        assert kept[0][2].read() == b"12"
        with pytest.raises(OSError, match="body"):
            kept[1][2].read()


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


def test_bounds_of_settings_are_those_of_the_core() -> None:
    """What --check-config accepts, a context can be made with."""
    for name, option in table().items():
        setting = option.setting
        if setting.group not in ("Limits", "Timeouts") or setting.minimum is None:
            continue
        for value in (setting.minimum, setting.maximum):
            if name == "limit_request_line":
                config = Config("x:y", limit_request_line=int(value), limit_request_head=1 << 20)
            elif name == "limit_request_head":
                config = Config("x:y", limit_request_line=64, limit_request_head=int(value))
            else:
                config = Config("x:y", **{name: option.kind(value)})
            make_core(config).close()
