"""What is on the wire when nothing is wrong, and how connections end."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest
import serving
from rawhttp import ClosedError, Raw, Response

pytestmark = pytest.mark.skipif(
    serving.PEER != "ppserver", reason="what is refused, and how, is each server's own"
)

HOST = b"Host: a\r\n"


@pytest.fixture(scope="module")
def server(serve: Callable[..., serving.Server], loop: str) -> serving.Server:
    return serve("wire:app", loop=loop, args=["--no-access-log"])


def closed(raw: Raw) -> bool:
    """The server closes and sends nothing more."""
    return raw.read_to_end() == b""


def still_open(raw: Raw) -> bool:
    raw.send(b"GET /hello?id=again HTTP/1.1\r\nHost: a\r\n\r\n")
    return raw.read_response().body == b"hello again"


# ---- keep-alive ----


@pytest.mark.parametrize(
    ("version", "header", "stays"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: keep-alive", True),
        ("1.1", "Connection: close", False),
        ("1.1", "Connection: Close", False),
        ("1.1", "Connection: keep-alive, close", False),
        ("1.1", "Connection: foo,\t,close", False),
        ("1.1", "Connection: closed", True),
        ("1.1", "Connection: keep-alive\r\nConnection: close", False),
        ("1.1", "Proxy-Connection: close", True),
        ("1.0", "", False),
        ("1.0", "Connection: keep-alive", True),
        ("1.0", "Connection: Keep-Alive", True),
        ("1.0", "Connection: keep-alive, close", False),
        ("1.0", "Connection: close", False),
        ("1.0", "Proxy-Connection: keep-alive", False),
    ],
)
def test_keep_alive(server: serving.Server, version: str, header: str, stays: bool) -> None:
    head = f"GET /hello HTTP/{version}\r\nHost: a\r\n{header}" + "\r\n" * (bool(header) + 1)
    with Raw(server) as raw:
        raw.send(head.encode())
        response = raw.read_response()
        assert (response.version, response.body) == ("HTTP/1.1", b"hello -")
        if stays:
            # A 1.0 client has to be told; a 1.1 client knows.
            if version == "1.0":
                assert response.get("connection") == "keep-alive"
            else:
                assert response.get("connection") in (None, "keep-alive")
            assert still_open(raw)
        else:
            assert response.get("connection") == "close"
            assert closed(raw)


def test_http_10_never_gets_chunks(server: serving.Server) -> None:
    for header in ("", "Connection: keep-alive\r\n"):
        with Raw(server) as raw:
            raw.send(f"GET /later?id=x HTTP/1.0\r\n{header}\r\n".encode())
            response = raw.read_response()
            assert response.get("transfer-encoding") is None
            assert response.get("content-length") is None
            assert response.get("connection") == "close"
            assert response.body == b"later x"


def test_http_10_without_host(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"GET /hello HTTP/1.0\r\n\r\n")
        assert raw.read_response().status == 200


def test_many_requests_on_one_connection(server: serving.Server) -> None:
    with Raw(server) as raw:
        for number in range(300):
            assert raw.ask(f"/hello?id={number}").body == f"hello {number}".encode()


def test_empty_lines_before_a_request(server: serving.Server) -> None:
    """Some old clients send one behind a body (RFC 9112, section 2.2)."""
    with Raw(server) as raw:
        raw.send(b"\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.read_response().status == 200
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\n")
        assert raw.read_response().body == b"ab"
        assert still_open(raw)


# ---- heads ----


def test_date_server_and_order(server: serving.Server) -> None:
    """Ours come once; the application's keep their order and their case."""
    with Raw(server) as raw:
        response = raw.ask("/hello")
    assert re.fullmatch(
        r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
        response.get("date") or "",
    )
    assert response.get("server") == "ppserver"
    names = [name for name, _ in response.headers]
    own = [name for name in names if name.lower() in ("content-type", "x-first", "x-2nd")]
    assert [name.lower() for name in own] == ["content-type", "x-first", "x-2nd"]
    assert len({name.lower() for name in names}) == len(names)
    assert response.get("content-length") == str(len(response.body))


def test_date_advances(server: serving.Server) -> None:
    with Raw(server) as raw:
        first = raw.ask("/hello").get("date")
        assert first is not None

        def changed() -> bool:
            return raw.ask("/hello").get("date") != first

        serving.wait_until(changed, what="another Date")


def test_date_and_server_can_be_switched_off(serve: Callable[..., serving.Server]) -> None:
    args = ["--no-server-header", "--no-date-header", "--header", "X-Extra: yes"]
    server = serve("wire:app", loop="asyncio", args=args)
    with Raw(server) as raw:
        response = raw.ask("/hello")
        assert (response.get("server"), response.get("date")) == (None, None)
        assert response.get("x-extra") == "yes"
        error = raw.ask("/hello", "Content-Length: x")
    assert error.status == 400
    assert error.get("server") is None


@pytest.mark.parametrize("path", ["/hello", "/later?id=x", "/big?bytes=1000", "/raises"])
def test_head_has_the_head_of_get(server: serving.Server, path: str) -> None:
    with Raw(server) as raw:
        get = raw.ask(path)
    with Raw(server) as raw:
        head = raw.ask(path, method="HEAD")
        assert head.status == get.status
        # A coding may be left out (RFC 9112, section 6.1): there is nothing that it would code.
        drop = {"date", "connection", "transfer-encoding"}
        kept = [pair for pair in get.headers if pair[0] not in drop]
        assert [pair for pair in head.headers if pair[0] not in drop] == kept
        if head.get("connection") != "close":
            assert still_open(raw)
        else:
            assert closed(raw)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("extra", ["", "&body=hello", "&stream=1", "&body=hello&stream=1"])
def test_status_without_body(server: serving.Server, status: int, extra: str) -> None:
    """Whatever the application says, no body byte is sent, and the next answer is in step."""
    with Raw(server) as raw:
        response = raw.ask(f"/status?status={status}{extra}")
        assert response.status == status
        assert response.get("transfer-encoding") is None
        if status == 204:
            assert response.get("content-length") is None
        assert still_open(raw)


@pytest.mark.parametrize("status", [200, 205, 206, 299, 404, 418, 599, 999])
def test_status_with_body(server: serving.Server, status: int) -> None:
    with Raw(server) as raw:
        response = raw.ask(f"/status?status={status}")
        assert (response.status, response.body) == (status, b"")
        assert response.get("content-length") == "0"
        assert still_open(raw)


@pytest.mark.parametrize("status", [0, 1, 99, 100, 101, 199, 1000, -200, 2**31, 2**64])
def test_status_nobody_may_send(server: serving.Server, status: int) -> None:
    server.allow("status: expected an int")
    with Raw(server) as raw:
        assert raw.ask(f"/status?status={status}").status == 500


def well_formed_error(response: Response) -> bool:
    assert response.get("connection") == "close"
    assert response.get("content-length") == str(len(response.body))
    assert (response.get("content-type") or "").startswith("text/plain")
    assert response.get("date")
    return True


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /raises HTTP/1.1\r\nHost: a\r\n\r\n", 500),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ],
)
def test_error_answers(server: serving.Server, data: bytes, status: int) -> None:
    with Raw(server) as raw:
        raw.send(data)
        response = raw.read_response()
        assert response.status == status
        assert well_formed_error(response)
        assert closed(raw)


def test_error_answers_quote_nothing(server: serving.Server) -> None:
    """No byte of the request comes back: nothing to inject."""
    with Raw(server) as raw:
        raw.send(b"GET /\x1b[31m<script> HTTP/1.1\r\nHost: a\r\nX: \x1b\r\n\r\n")
        response = raw.read_response()
    assert b"script" not in response.body
    assert b"\x1b" not in response.body


# ---- forms of the target, upgrade ----


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://b.example/scope?x=1", "/scope", "x=1", "b.example"),
        ("HTTP://B.example:81/scope", "/scope", "", "B.example:81"),
        ("https://b/scope", "/scope", "", "b"),
        ("http://[::1]:80/scope", "/scope", "", "[::1]:80"),
    ],
)
def test_absolute_form(
    server: serving.Server, target: str, path: str, query: str, host: str
) -> None:
    with Raw(server) as raw:
        shown = json.loads(raw.ask(target).body)
        assert (shown["path"], shown["query"]) == (path, query)
        assert [value for name, value in shown["headers"] if name == "host"] == [host]
        assert still_open(raw)


@pytest.mark.parametrize("target", ["http://b", "http://b?x=1"])
def test_absolute_form_without_a_path(server: serving.Server, target: str) -> None:
    with Raw(server) as raw:
        assert raw.ask(target.replace("?x", "?id")).status == 200
    assert "GET / -" in server.records() or "GET / 1" in server.records()


def test_asterisk_form(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.read_response().status in (200, 404)
        assert still_open(raw)


def test_connect_is_refused_with_its_tunnel(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(
            b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /hello?id=tunnel HTTP/1.1\r\n"
            b"Host: a\r\n\r\n"
        )
        assert raw.read_response().status == 501
        assert closed(raw)
    assert not any("tunnel" in line for line in server.records())


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0", "nonsense"])
def test_upgrade_is_not_taken(server: serving.Server, protocol: str) -> None:
    """RFC 9110, section 7.8: a server may ignore the offer. The request is an ordinary one."""
    with Raw(server) as raw:
        response = raw.ask(
            "/hello",
            "Connection: Upgrade, HTTP2-Settings",
            f"Upgrade: {protocol}",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        )
        assert response.status == 200
        assert response.get("upgrade") is None
        assert still_open(raw)


# ---- Expect ----

EXPECT = b"Expect: 100-continue\r\n"


def test_continue_comes_when_the_application_reads(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + EXPECT + b"\r\n")
        interim = raw.read_response()
        assert (interim.status, interim.headers) == (100, [])
        raw.send(b"hello")
        assert raw.read_response().body == b"hello"
        assert still_open(raw)


def test_continue_with_chunks(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + EXPECT + b"\r\n"
        )
        assert raw.read_response().status == 100
        raw.send(b"5\r\nhello\r\n0\r\n\r\n")
        assert raw.read_response().body == b"hello"
        assert still_open(raw)


def test_no_continue_when_the_body_is_not_read(server: serving.Server) -> None:
    """The final answer comes at once; the body may or may not follow: so the connection ends."""
    with Raw(server) as raw:
        raw.send(b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + EXPECT + b"\r\n")
        response = raw.read_response()
        assert (response.status, response.get("connection")) == (200, "close")
        raw.send(b"GET /hello?id=not-a-body HTTP/1.1\r\nHost: a\r\n\r\n")
        assert closed(raw)
    assert not any("not-a-body" in line for line in server.records())


def test_no_continue_for_who_does_not_wait(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + EXPECT + b"\r\nhello")
        assert (response := raw.read_response()).status == 200
        assert response.body == b"hello"
        assert still_open(raw)


def test_no_continue_without_a_body(server: serving.Server) -> None:
    for length in (b"", b"Content-Length: 0\r\n"):
        with Raw(server) as raw:
            raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + length + EXPECT + b"\r\n")
            assert raw.read_response().status == 200
            assert still_open(raw)


def test_no_continue_for_http_10(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n" + EXPECT + b"\r\n")
        raw.send(b"hello")
        assert raw.read_response().status == 200


def test_refused_before_continue(server: serving.Server) -> None:
    """A request that is wrong gets its refusal instead of an invitation."""
    with Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n" + EXPECT + b"\r\n")
        assert raw.read_response().status == 400
        assert closed(raw)


# ---- early answers ----


def upload(raw: Raw, total: int, errors: list[OSError]) -> None:
    piece = b"u" * 65536
    try:
        for _ in range(total // len(piece)):
            raw.socket.sendall(piece)
    except OSError as error:
        errors.append(error)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("path", ["/big", "/some"])
def test_early_answer_arrives_whole_during_an_upload(
    server: serving.Server, path: str, size: int
) -> None:
    """10 MB are on their way that nobody will read; the answer is not lost in a reset."""
    with Raw(server) as raw:
        target = f"{path}?bytes={size}".encode()
        raw.send(b"POST " + target + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n")
        errors: list[OSError] = []
        sender = threading.Thread(target=upload, args=(raw, 10_485_760, errors))
        sender.start()
        response = raw.read_response()
        assert response.status == 200
        assert len(response.body) == (size if path == "/big" else len(b"enough"))
        sender.join(serving.MUST_SECONDS)
        assert not sender.is_alive()


def test_early_answer_is_there_after_the_upload(server: serving.Server) -> None:
    """A client that only looks at the answer once it has sent all it wanted to send."""
    with Raw(server) as raw:
        raw.send(b"POST /hello?id=x HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        for _ in range(9):
            raw.send(b"u" * 100_000)
        assert raw.read_response().body == b"hello x"
        assert closed(raw)


def test_early_answer_with_the_whole_body_there(server: serving.Server) -> None:
    """A small body that is already here is no reason to end the connection or to read it as a
    request."""
    with Raw(server) as raw:
        raw.send(b"POST /hello?id=x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        response = raw.read_response()
        assert response.body == b"hello x"
        if response.get("connection") == "close":
            assert closed(raw)
        else:
            assert still_open(raw)


def test_unread_body_is_never_a_request(server: serving.Server) -> None:
    """The body looks like a request; it comes after the answer, and before."""
    inner = b"GET /hello?id=from-a-body HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner)
    for late in (False, True):
        with Raw(server) as raw:
            raw.send(head if late else head + inner)
            assert raw.read_response().status == 200
            if late:
                raw.send(inner)
                assert closed(raw)
    assert not any("from-a-body" in line for line in server.records())


def test_half_close_still_gets_its_answer(server: serving.Server) -> None:
    """A client may shut its side after its request and still wait (`printf … | nc`)."""
    for path in ("/hello?id=x", "/later?id=x&seconds=0.02", "/big?bytes=300000"):
        with Raw(server) as raw:
            raw.request(path)
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.read_response().status == 200
            assert closed(raw)


# ---- what an application may not send ----

SPLITS = {
    "CRLF": "name=x-a&value=1%0D%0ASet-Cookie:+evil=1",
    "LF": "name=x-a&value=1%0ASet-Cookie:+evil=1",
    "CR": "name=x-a&value=1%0DSet-Cookie:+evil=1",
    "fold": "name=x-a&value=1%0D%0A+2",
    "NUL": "name=x-a&value=1%002",
    "whole response": "name=x-a&value=1%0D%0A%0D%0AHTTP/1.1+200+OK%0D%0A%0D%0Aevil",
    "LF at the end": "name=x-a&value=1%0A",
    "CR at the end": "name=x-a&value=1%0D",
    "bell": "name=x-a&value=%07",
    "escape": "name=x-a&value=%1B[31m",
    "DEL": "name=x-a&value=%7F",
    "CRLF in the name": "name=x-a%0D%0Aset-cookie:+evil&value=1",
    "LF in the name": "name=x-a%0Aevil&value=1",
    "colon in the name": "name=x-a:+evil&value=1",
    "space in the name": "name=x+a&value=1",
    "space behind the name": "name=x-a+&value=1",
    "NUL in the name": "name=x%00a&value=1",
    "empty name": "name=&value=1",
    "byte above 127 in the name": "name=x-%E4&value=1",
    "bad length": "name=content-length&value=abc",
    "signed length": "name=content-length&value=%2B4",
    "negative length": "name=content-length&value=-4",
    "list of lengths": "name=content-length&value=4,4",
    "huge length": "name=content-length&value=99999999999999999999",
}


@pytest.mark.parametrize("stream", ["", "&stream=1"])
@pytest.mark.parametrize("name", SPLITS)
def test_response_splitting(server: serving.Server, name: str, stream: str) -> None:
    server.allow("header name|header value|Content-Length|header field")
    with Raw(server) as raw:
        response = raw.ask(f"/header?{SPLITS[name]}{stream}")
        assert response.status == 500
        assert b"evil" not in response.body
        assert not any("evil" in n + v for n, v in response.headers)
        assert closed(raw)


@pytest.mark.parametrize("value", ["a%09b", "%E4%FF", "", "%20 %20", "a,b;c=%22d%22"])
def test_header_values_that_are_right(server: serving.Server, value: str) -> None:
    with Raw(server) as raw:
        response = raw.ask(f"/header?name=x-a&value={value.replace(' ', '+')}")
        assert response.status == 200
        assert response.get("x-a") is not None


def test_framing_is_not_the_applications(server: serving.Server) -> None:
    """An application that names a transfer coding or connection option cannot break the frame."""
    for header in ("transfer-encoding&value=gzip", "transfer-encoding&value=chunked"):
        for stream in ("", "&stream=1"):
            with Raw(server) as raw:
                response = raw.ask(f"/header?name={header}{stream}")
                if response.status == 200:
                    assert response.body == (b"partpart" if stream else b"part")
                else:
                    assert response.status == 500
    server.allow("ransfer")


@pytest.mark.parametrize("when", ["before", "suspended", "head"])
def test_exception_before_a_byte_was_sent(server: serving.Server, when: str) -> None:
    with Raw(server) as raw:
        response = raw.ask(f"/raises?when={when}")
        assert response.status == 500
        assert well_formed_error(response)
        assert b"expected" not in response.body
        assert closed(raw)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("query", ["when=middle", "when=middle&sleep=1", "when=length"])
def test_exception_in_the_middle_is_no_complete_answer(
    server: serving.Server, version: str, query: str
) -> None:
    """The client can tell: no last chunk, too few bytes, or (1.0) a reset."""
    with Raw(server) as raw:
        raw.send(f"GET /raises?{query} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        with pytest.raises((ClosedError, ConnectionResetError)):
            raw.read_response()


def test_exception_after_the_end_changes_nothing(server: serving.Server) -> None:
    with Raw(server) as raw:
        assert raw.ask("/raises?when=end").body == b"all"
        assert still_open(raw)


# ---- pieces ----

REQUEST = (
    b"POST /echo?id=cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    b"5\r\nhello\r\n1;x\r\n!\r\n0\r\nT: 1\r\n\r\n"
)


@pytest.mark.parametrize("cut", range(1, len(REQUEST)))
def test_cut_at_each_byte(server: serving.Server, cut: int) -> None:
    with Raw(server) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.send(REQUEST[:cut])
        time.sleep(0)
        raw.send(REQUEST[cut:])
        assert raw.read_response().body == b"hello!"


def test_byte_by_byte(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for number in range(len(REQUEST)):
                raw.send(REQUEST[number : number + 1])
            assert raw.read_response().body == b"hello!"


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 16, 1000, 4096, 16384, 65536])
def test_chunks_of_any_size(server: serving.Server, piece: int) -> None:
    data = bytes(range(256)) * 1024
    if piece < 16:
        data = data[:4096]
    framed = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (data[at : at + piece] for at in range(0, len(data), piece))
    )
    with Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
        raw.send(b"0\r\n\r\n")
        assert raw.read_response().body == data
        assert still_open(raw)


# ---- the access log ----


def test_access_log_shows_no_control_byte(serve: Callable[..., serving.Server], loop: str) -> None:
    """Nothing that a terminal or a reader of lines would take for something else."""
    server = serve("wire:app", loop=loop, args=["--access-log"])
    targets = [
        b'/hello?id=mark1&quote="&backslash=\\',
        b"/hello?id=mark2&percent=%0d%0a%1b",
        b"/hello?id=mark3&utf8=\xc3\xa9",
        b"/hello?id=mark4&csi=\x9b31m&del=\x7f",
        b"/hello?id=mark5&latin=\xe4\xff\x85",
    ]
    lines = []
    for number, target in enumerate(targets, 1):
        with Raw(server) as raw:
            raw.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            status = raw.read_response().status
        if status == 200:
            lines.append(server.wait_for_log(f".*id=mark{number}.*").group())
    assert len(lines) >= 2
    for line in lines:
        assert line.isprintable(), repr(line)
        # The request stands between its two quotes, and no other quote can end it before.
        assert re.fullmatch(
            r'INFO: +127\.0\.0\.1:\d+ - "GET (?:[^"\\]|\\.)* HTTP/1\.1" 200( OK)?', line
        ), line


def test_access_log_of_refused_requests(serve: Callable[..., serving.Server], loop: str) -> None:
    server = serve("wire:app", loop=loop, args=["--access-log"])
    with Raw(server) as raw:
        raw.send(b"GET /\x1b[2J\r\nINFO:     forged HTTP/1.1\r\n\r\n")
        assert raw.read_response().status == 400
    with Raw(server) as raw:
        assert raw.ask("/hello").status == 200
    assert "forged" not in server.log
    assert "\x1b" not in server.log
