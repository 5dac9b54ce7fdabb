"""What a stranger sends to be understood in two ways: each shape gets its refusal and the end.

Behind every shape comes a whole request that must never reach the application: after a refusal
nothing on the connection is looked at again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import serving
from rawhttp import ClosedError, Raw

pytestmark = pytest.mark.skipif(
    serving.PEER != "ppserver", reason="what is refused, and how, is each server's own"
)

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

_numbers = itertools.count(1)


def request_lines() -> dict[str, tuple[bytes, int]]:
    rest = b"\r\nHost: a\r\n\r\n"
    return {
        "no version": (b"GET /hello" + rest, 505),
        "no version, bare LF": (b"GET /hello\n", 400),
        "no target": (b"GET HTTP/1.1" + rest, 505),  # a target named HTTP/1.1, as in HTTP/0.9
        "empty target": (b"GET  HTTP/1.1" + rest, 400),
        "only a method": (b"GET" + rest, 400),
        "two spaces": (b"GET  /hello HTTP/1.1" + rest, 400),
        "two spaces before the version": (b"GET /hello  HTTP/1.1" + rest, 400),
        "tab": (b"GET\t/hello HTTP/1.1" + rest, 400),
        "tab before the version": (b"GET /hello\tHTTP/1.1" + rest, 400),
        "leading space": (b" GET /hello HTTP/1.1" + rest, 400),
        "trailing space": (b"GET /hello HTTP/1.1 " + rest, 400),
        "space in the target": (b"GET /hello there HTTP/1.1" + rest, 400),
        "version 0.9": (b"GET /hello HTTP/0.9" + rest, 505),
        "version 1.2": (b"GET /hello HTTP/1.2" + rest, 505),
        "version 2.0": (b"GET /hello HTTP/2.0" + rest, 505),
        "version 3": (b"GET /hello HTTP/3" + rest, 400),
        "version 1.10": (b"GET /hello HTTP/1.10" + rest, 400),
        "version 01.1": (b"GET /hello HTTP/01.1" + rest, 400),
        "version with a sign": (b"GET /hello HTTP/+1.1" + rest, 400),
        "version in lower case": (b"GET /hello http/1.1" + rest, 400),
        "another protocol": (b"GET /hello RTSP/1.0" + rest, 400),
        "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        "bare LF": (b"GET /hello HTTP/1.1\nHost: a\r\n\r\n", 400),
        "bare CR": (b"GET /hello HTTP/1.1\rHost: a\r\n\r\n", 400),
        "CR CR LF": (b"GET /hello HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        "bare LF before it": (b"\nGET /hello HTTP/1.1" + rest, 400),
        "many empty lines": (b"\r\n" * 50 + b"GET /hello HTTP/1.1" + rest, 400),
        "NUL in the target": (b"GET /he\0llo HTTP/1.1" + rest, 400),
        "NUL in the method": (b"G\0ET /hello HTTP/1.1" + rest, 400),
        "control byte in the target": (b"GET /he\x07llo HTTP/1.1" + rest, 400),
        "DEL in the target": (b"GET /he\x7fllo HTTP/1.1" + rest, 400),
        "CR in the target": (b"GET /he\rllo HTTP/1.1" + rest, 400),
        "colon in the method": (b"GET: /hello HTTP/1.1" + rest, 400),
        "quote in the method": (b'"GET" /hello HTTP/1.1' + rest, 400),
        "byte above 127 in the method": (b"G\xc3\x89T /hello HTTP/1.1" + rest, 400),
        "relative target": (b"GET hello HTTP/1.1" + rest, 400),
        "asterisk for GET": (b"GET * HTTP/1.1" + rest, 400),
        "authority for GET": (b"GET a:80 HTTP/1.1" + rest, 400),
        "absolute form without a host": (b"GET http:///hello HTTP/1.1" + rest, 400),
        "absolute form with user": (b"GET http://me@a/hello HTTP/1.1" + rest, 400),
        "absolute form of another scheme": (b"GET ftp://a/hello HTTP/1.1" + rest, 400),
        "absolute form, bad port": (b"GET http://a:x/hello HTTP/1.1" + rest, 400),
        "CONNECT without a port": (b"CONNECT a HTTP/1.1" + rest, 400),
        "CONNECT with a path": (b"CONNECT /hello HTTP/1.1" + rest, 400),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 64, 400),
        "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    }


def hosts() -> dict[str, tuple[bytes, int]]:
    bad = {
        "missing": b"",
        "two": b"Host: a\r\nHost: b\r\n",
        "two of the same": b"Host: a\r\nHost: a\r\n",
        "two, other case": b"Host: a\r\nhOsT: a\r\n",
        "empty": b"Host:\r\n",
        "list": b"Host: a, b\r\n",
        "with a space": b"Host: a b\r\n",
        "with a tab": b"Host: a\tb\r\n",
        "with a path": b"Host: a/b\r\n",
        "with a backslash": b"Host: a\\b\r\n",
        "with a query": b"Host: a?b\r\n",
        "with a fragment": b"Host: a#b\r\n",
        "with user": b"Host: me@a\r\n",
        "with a scheme": b"Host: http://a\r\n",
        "port is no number": b"Host: a:http\r\n",
        "port with a sign": b"Host: a:+80\r\n",
        "two ports": b"Host: a:80:80\r\n",
        "bracket open": b"Host: [::1\r\n",
        "bracket for a name": b"Host: [a]\r\n",
        "angle brackets": b"Host: <a>\r\n",
        "quote": b'Host: "a"\r\n',
        "byte above 127": b"Host: \xc3\xa4\r\n",
        "NUL": b"Host: a\0b\r\n",
    }
    return {
        f"host {name}": (b"GET /hello HTTP/1.1\r\n" + line + b"\r\n", 400)
        for name, line in bad.items()
    }


def fields() -> dict[str, tuple[bytes, int]]:
    bad = {
        "space before the colon": b"X-A : 1\r\n",
        "tab before the colon": b"X-A\t: 1\r\n",
        "leading space": b" X-A: 1\r\n",
        "obs-fold": b"X-A: 1\r\n 2\r\n",
        "obs-fold with a tab": b"X-A: 1\r\n\t2\r\n",
        "obs-fold of an empty value": b"X-A:\r\n 2\r\n",
        "no colon": b"X-A 1\r\n",
        "no name": b": 1\r\n",
        "NUL in the name": b"X\0A: 1\r\n",
        "NUL in the value": b"X-A: 1\x002\r\n",
        "CR in the value": b"X-A: 1\r2\r\n",
        "LF in the value": b"X-A: 1\n2\r\n",
        "bare LF at the end": b"X-A: 1\n",
        "CR CR LF at the end": b"X-A: 1\r\r\n",
        "LF CR": b"X-A: 1\n\r",
        "control byte in the value": b"X-A: 1\x012\r\n",
        "vertical tab in the value": b"X-A: 1\x0b2\r\n",
        "escape in the value": b"X-A: \x1b[31m\r\n",
        "DEL in the value": b"X-A: \x7f\r\n",
        "space in the name": b"X A: 1\r\n",
        "slash in the name": b"X/A: 1\r\n",
        "parenthesis in the name": b"X(A): 1\r\n",
        "byte above 127 in the name": b"X-\xc3\x84: 1\r\n",
        "non-breaking space in the name": b"Content-Length\xa0: 5\r\n",
        "Connection is no list": b"Connection: close; x\r\n",
    }
    return {f"field: {name}": (GET + line + b"\r\n", 400) for name, line in bad.items()}


def lengths() -> dict[str, tuple[bytes, int]]:
    bad = {
        "plus": b"Content-Length: +5\r\n",
        "minus": b"Content-Length: -5\r\n",
        "minus zero": b"Content-Length: -0\r\n",
        "empty": b"Content-Length:\r\n",
        "spaces": b"Content-Length:    \r\n",
        "list": b"Content-Length: 5, 5\r\n",
        "list without a space": b"Content-Length: 5,5\r\n",
        "two numbers": b"Content-Length: 5 5\r\n",
        "hex": b"Content-Length: 0x5\r\n",
        "octal": b"Content-Length: 0o5\r\n",
        "underscore": b"Content-Length: 1_0\r\n",
        "fraction": b"Content-Length: 5.0\r\n",
        "exponent": b"Content-Length: 5e0\r\n",
        "semicolon": b"Content-Length: 5;\r\n",
        "quoted": b'Content-Length: "5"\r\n',
        "letters": b"Content-Length: five\r\n",
        "2**63": b"Content-Length: 9223372036854775808\r\n",
        "2**64": b"Content-Length: 18446744073709551616\r\n",
        "2**64 + 5": b"Content-Length: 18446744073709551621\r\n",
        "2**32 digits' worth": b"Content-Length: " + b"9" * 100 + b"\r\n",
        "other digits": b"Content-Length: \xd9\xa5\r\n",
        "vertical tab": b"Content-Length: \x0b5\r\n",
        "two that differ": b"Content-Length: 5\r\nContent-Length: 6\r\n",
        "two of the same": b"Content-Length: 5\r\nContent-Length: 5\r\n",
        "two, the first is empty": b"Content-Length:\r\nContent-Length: 5\r\n",
        "space before the colon": b"Content-Length : 5\r\n",
        "folded": b"Content-Length:\r\n 5\r\n",
    }
    return {f"length: {name}": (POST + line + b"\r\nhello", 400) for name, line in bad.items()}


def codings() -> dict[str, tuple[bytes, int]]:
    data = b"\r\n5\r\nhello\r\n0\r\n\r\n"
    bad = {
        "with a length": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "before a length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "with a length of zero": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "identity": b"Transfer-Encoding: identity\r\n",
        "identity with a length": b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "gzip": b"Transfer-Encoding: gzip\r\n",
        "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n",
        "chunked, gzip": b"Transfer-Encoding: chunked, gzip\r\n",
        "chunked, identity": b"Transfer-Encoding: chunked, identity\r\n",
        "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
        "chunked in two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "gzip and chunked in two fields": (
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"
        ),
        "empty": b"Transfer-Encoding:\r\n",
        "comma": b"Transfer-Encoding: ,chunked\r\n",
        "comma behind": b"Transfer-Encoding: chunked,\r\n",
        "parameter": b"Transfer-Encoding: chunked;q=1\r\n",
        "quoted": b'Transfer-Encoding: "chunked"\r\n',
        "xchunked": b"Transfer-Encoding: xchunked\r\n",
        "chunkedx": b"Transfer-Encoding: chunkedx\r\n",
        "chunk": b"Transfer-Encoding: chunk\r\n",
        "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
        "vertical tab behind": b"Transfer-Encoding: chunked\x0b\r\n",
        "NUL behind": b"Transfer-Encoding: chunked\0\r\n",
        "space before the colon": b"Transfer-Encoding : chunked\r\n",
        "folded": b"Transfer-Encoding:\r\n chunked\r\n",
        "folded behind": b"Transfer-Encoding: chunked\r\n , identity\r\n",
        "space before the name": b" Transfer-Encoding: chunked\r\n",
        "long s": "Tran\u017ffer-Encoding: chunked\r\n".encode(),
    }
    shapes = {f"coding: {name}": (POST + line + data, 400) for name, line in bad.items()}
    shapes["coding on 1.0"] = (
        b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + data,
        400,
    )
    shapes["coding on 1.0, keep-alive"] = (
        b"POST /echo HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n"
        b"Transfer-Encoding: chunked\r\n" + data,
        400,
    )
    return shapes


def chunks() -> dict[str, tuple[bytes, int]]:
    end = b"0\r\n\r\n"
    bad = {
        "0x": b"0x5\r\nhello\r\n" + end,
        "plus": b"+5\r\nhello\r\n" + end,
        "minus": b"-5\r\nhello\r\n" + end,
        "space before": b" 5\r\nhello\r\n" + end,
        "space behind": b"5 \r\nhello\r\n" + end,
        "tab behind": b"5\t\r\nhello\r\n" + end,
        "no digits": b"\r\nhello\r\n" + end,
        "no hex": b"g\r\nhello\r\n" + end,
        "underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n" + end,
        "17 digits": b"00000000000000005\r\nhello\r\n" + end,
        "2**64 + 5": b"10000000000000005\r\nhello\r\n" + end,
        "bare LF": b"5\nhello\r\n" + end,
        "bare CR": b"5\rhello\r\n" + end,
        "CR CR LF": b"5\r\r\nhello\r\n" + end,
        "extension with LF": b"5;a\nb\r\nhello\r\n" + end,
        "extension with CR": b"5;a\rb\r\nhello\r\n" + end,
        "extension with NUL": b"5;a\0\r\nhello\r\n" + end,
        "extension too long": b"5;" + b"a" * 2000 + b"\r\nhello\r\n" + end,
        "extensions too long together": (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 100 + end,
        "data too long": b"5\r\nhello!\r\n" + end,
        "data ends with LF": b"5\r\nhello\n" + end,
        "data ends with CR": b"5\r\nhello\r" + end,
        "data ends with nothing": b"5\r\nhello" + end,
        "data ends with other bytes": b"5\r\nhelloXX" + end,
        "last chunk with LF": b"5\r\nhello\r\n0\n\n",
        "last line with LF": b"5\r\nhello\r\n0\r\n\n",
        "last line with CR": b"5\r\nhello\r\n0\r\n\rX",
        "trailer with a fold": b"5\r\nhello\r\n0\r\nA: 1\r\n 2\r\n\r\n",
        "trailer without a colon": b"5\r\nhello\r\n0\r\nA\r\n\r\n",
        "trailer with a space": b"5\r\nhello\r\n0\r\nA : 1\r\n\r\n",
        "trailer with NUL": b"5\r\nhello\r\n0\r\nA: \0\r\n\r\n",
        "trailer with LF": b"5\r\nhello\r\n0\r\nA: 1\n\r\n",
        "trailers too long": b"5\r\nhello\r\n0\r\n" + b"A: 1234567\r\n" * 2000 + b"\r\n",
    }
    shapes = {f"chunk: {name}": (CHUNKED + data, 400) for name, data in bad.items()}
    for name, size in {"2**63": b"8000000000000000", "2**64 - 1": b"FFFFFFFFFFFFFFFF"}.items():
        shapes[f"chunk: {name}"] = (CHUNKED + size + b"\r\nhello\r\n" + end, 413)
    return shapes


SHAPES = {**request_lines(), **hosts(), **fields(), **lengths(), **codings(), **chunks()}


@pytest.fixture(scope="module")
def server(serve: Callable[..., serving.Server], loop: str) -> serving.Server:
    return serve("wire:app", loop=loop, args=["--no-access-log"])


def read_last(raw: Raw) -> Any:
    """The last response on a connection; then the server must close it."""
    response = raw.read_response()
    try:
        rest = raw.read_to_end()
    except ConnectionResetError:
        rest = b""
    assert rest == b""
    return response


@pytest.mark.parametrize("name", SHAPES)
def test_refused(server: serving.Server, name: str) -> None:
    data, status = SHAPES[name]
    mark = f"smuggled{next(_numbers)}"
    behind = f"GET /hello?id={mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with Raw(server) as raw:
        raw.send(data + behind)
        response = read_last(raw)
    assert response.status == status
    assert response.get("connection") == "close"
    assert not any(mark in line for line in server.records())


@pytest.mark.parametrize("name", SHAPES)
def test_refused_behind_a_good_request(serve: Callable[..., serving.Server], name: str) -> None:
    """The good request keeps its answer, and nothing behind the bad one is looked at."""
    server = serve("wire:app", loop="asyncio", args=["--no-access-log"])
    data, status = SHAPES[name]
    mark = f"behind{next(_numbers)}"
    good = f"GET /later?id={mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    behind = f"GET /hello?id=smuggled-{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with Raw(server) as raw:
        raw.send(good + data + behind)
        first = raw.read_response()
        assert (first.status, first.body) == (200, f"later {mark}".encode())
        response = read_last(raw)
    assert response.status == status
    assert [line for line in server.records() if mark in line] == [f"GET /later {mark}"]


@pytest.mark.parametrize("name", chunks())
def test_bad_chunks_nobody_reads(server: serving.Server, name: str) -> None:
    """The application answers without its body: its answer stands, the connection does not."""
    data = SHAPES[name][0].replace(b"/echo", b"/hello")
    mark = f"unread{next(_numbers)}"
    behind = f"GET /hello?id={mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with Raw(server) as raw:
        raw.send(data + behind)
        response = read_last(raw)
    assert response.status in (200, 400, 413)
    assert response.get("connection") == "close"
    assert not any(mark in line for line in server.records())


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"05\r\nhello\r\n000\r\n\r\n",
        b"0000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
        b'5;name="quoted value"\r\nhello\r\n0\r\n\r\n',
        b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\nContent-Length: 7\r\nHost: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: gzip\r\nAuthorization: x\r\n\r\n",
    ],
)
def test_chunks_that_are_right(server: serving.Server, data: bytes) -> None:
    """Trailers are dropped, whatever their names say; the connection goes on."""
    with Raw(server) as raw:
        raw.send(CHUNKED + data + GET + b"\r\n")
        assert raw.read_response().body == b"hello"
        assert raw.read_response().body == b"hello -"


def test_trailers_are_not_headers(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(
            b"POST /scope HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
        )
        assert b"x-trailer" not in raw.read_response().body


@pytest.mark.parametrize("name", ["CHUNKED", "Chunked", "chunked  ", "\tchunked"])
def test_codings_that_are_right(server: serving.Server, name: str) -> None:
    with Raw(server) as raw:
        raw.send(POST + b"Transfer-Encoding: " + name.encode() + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert raw.read_response().body == b"hello"


@pytest.mark.parametrize("length", ["5", "05", "0000000000000000000000005", " 5 ", "\t5\t"])
def test_lengths_that_are_right(server: serving.Server, length: str) -> None:
    with Raw(server) as raw:
        raw.send(POST + b"Content-Length:" + length.encode() + b"\r\n\r\nhello" + GET + b"\r\n")
        assert raw.read_response().body == b"hello"
        assert raw.read_response().body == b"hello -"


def test_host_of_an_absolute_target_wins(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"GET http://right:8080/scope?q HTTP/1.1\r\nHost: wrong\r\n\r\n")
        text = raw.read_response().body
    assert b'["host", "right:8080"]' in text
    assert b"wrong" not in text
    assert b'"path": "/scope"' in text


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_refusal_does_not_depend_on_the_cut(server: serving.Server, cut: int) -> None:
    data = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"
    with Raw(server) as raw:
        raw.send(data[:cut])
        raw.send(data[cut:])
        assert read_last(raw).status == 400


def test_closed_without_a_word_only_before_a_request(server: serving.Server) -> None:
    """A client that says nothing, or half a request, and goes gets no answer and harms nobody."""
    for data in (b"", b"\r\n", b"GET /hel", GET, POST + b"Content-Length: 9\r\n\r\nhell"):
        with Raw(server) as raw:
            raw.send(data)
            raw.socket.shutdown(1)
            with pytest.raises((ClosedError, ConnectionResetError)):
                raw.read_response()
    with Raw(server) as raw:
        assert raw.ask("/hello").status == 200
