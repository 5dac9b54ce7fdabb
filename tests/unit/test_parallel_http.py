"""`parallel.http` without a connection: answers, ranges, fields, dates and paths."""

from __future__ import annotations

import copy
import os
import pathlib
import time
from typing import Any

import pytest

pytest.importorskip("h11")

from parallel.http.dates import parse_date
from parallel.http.messages import FilePart
from parallel.http.server import (
    Headers,
    HttpServer,
    InvalidRangeRequest,
    RangedRequest,
    Request,
    Response,
    date_time_string,
    gmtime,
    guess_type,
    html_response,
    json_serialization,
    quote_html,
    text_response,
    text_serialization,
    translate_path,
)

NINETY_FOUR = 784111777  # the date of RFC 9110 section 5.6.7


def split(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    """Status line, fields by name in lower case, body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(field.split(": ", 1) for field in lines)
    assert len(fields) == len(lines)
    return line, {name.lower(): value for name, value in fields.items()}, body


# ---- answers ----


@pytest.mark.parametrize(
    ("request_", "media", "body"),
    [
        (text_response(), "text/plain; charset=utf-8", b"Hello, World!"),
        (text_response(None, ""), None, b""),
        (text_response(None, "\u00e9"), "text/plain; charset=utf-8", b"\xc3\xa9"),
        (text_serialization(), "text/plain; charset=utf-8", b"Hello, World!"),
        (text_serialization(text="x"), "text/plain; charset=utf-8", b"x"),
        (html_response(None, "<p>"), "text/html; charset=utf-8", b"<p>"),
        (json_serialization(), "application/json", b'{"message": "Hello, World!"}'),
        (json_serialization(obj=[]), "application/json", b"[]"),
    ],
)
def test_without_a_transport(request_: Request, media: str | None, body: bytes) -> None:
    line, fields, found = split(bytes(request_))
    assert line == "HTTP/1.1 200 OK"
    assert found == body
    assert fields["content-length"] == str(len(body))
    assert fields["server"] == "ppserver"
    assert parse_date(fields["date"]) is not None
    if media is not None:
        assert fields["content-type"] == media
    assert bytes(request_.response) == bytes(request_)


def test_what_a_response_says() -> None:
    request = Request()
    response = request.response
    response.code, response.message = 404, "Gone fishing"
    response.body, response.content_type = b"<p>", "text/html"
    response.etag, response.last_modified = "v1", NINETY_FOUR
    response.content_range = "bytes 0-2/9"
    response.other_headers = ["X-One: 1", ("X-Two", " 2 "), ("Server", "mine")]
    line, fields, body = split(bytes(request))
    assert line == "HTTP/1.1 404 Gone fishing"
    assert body == b"<p>"
    assert fields["etag"] == '"v1"'
    assert fields["last-modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert fields["content-range"] == "bytes 0-2/9"
    assert (fields["x-one"], fields["x-two"], fields["server"]) == ("1", "2", "mine")


@pytest.mark.parametrize("code", [204, 304])
def test_codes_without_a_body(code: int) -> None:
    line, fields, body = split(bytes(text_response(None, "ignored", code)))
    assert line.startswith(f"HTTP/1.1 {code} ")
    assert body == b""
    assert "content-length" not in fields
    assert "content-type" not in fields


def test_a_code_without_a_phrase() -> None:
    assert bytes(text_response(None, "", 599)).startswith(b"HTTP/1.1 599 \r\n")


def test_head_and_keep_alive() -> None:
    request = text_response(None, "12345")
    request.command = "HEAD"
    _, fields, body = split(bytes(request))
    assert (fields["content-length"], body) == ("5", b"")
    request.keep_alive = False
    assert split(bytes(request))[1]["connection"] == "close"
    request.keep_alive, request.version = True, "HTTP/1.0"
    assert split(bytes(request))[1]["connection"] == "keep-alive"
    request.response.other_headers = ["Connection: close"]
    assert split(bytes(request))[1]["connection"] == "close"


def test_a_length_by_hand_is_for_head() -> None:
    response = Response()
    response.content_length = 1 << 40
    head, _, _, _ = response.parts("HEAD", True, False)
    assert b"Content-Length: 1099511627776\r\n" in head
    head, _, _, _ = response.parts("GET", True, False)
    assert b"Content-Length: 0\r\n" in head


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("code", 199),
        ("code", 600),
        ("code", "200"),
        ("message", "OK\r\nX-Evil: 1"),
        ("content_type", "text/plain\r\nX-Evil: 1"),
        ("etag", 'x"\r\nX-Evil: "1"'),
        ("last_modified", "now\nX-Evil: 1"),
        ("content_range", "bytes\0"),
        ("other_headers", ["X-Good"]),
        ("other_headers", ["X-Evil: \u20ac"]),
        ("other_headers", ["X Evil: 1"]),
        ("other_headers", [("X-Good\r\nX-Evil", "1")]),
        ("other_headers", ["Transfer-Encoding: chunked"]),
        ("other_headers", ["Content-Length: 3"]),
        ("other_headers", ["Connection: upgrade"]),
    ],
)
def test_what_cannot_be_sent(attribute: str, value: Any) -> None:
    request = text_response(None, "1234")
    setattr(request.response, attribute, value)
    with pytest.raises(ValueError, match=r"\w"):
        bytes(request)


def test_a_body_in_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "name"
    path.write_bytes(b"0123456789")
    response = Response()
    response.file = FilePart(str(path), 3, 4)
    assert split(bytes(response))[2] == b"3456"
    response.file = FilePart(str(path), 8, 4)
    with pytest.raises(ValueError, match="name has become shorter"):
        bytes(response)


def test_errors_and_redirections() -> None:
    server, request = HttpServer(), Request()
    request.response.etag = "old"
    assert server.error(request, 404, "no\r\nsuch") is request
    line, fields, body = split(bytes(request))
    assert line == "HTTP/1.1 404 Not Found"
    assert body == b"404 Not Found\nno\\x0d\nsuch\n"
    assert "etag" not in fields
    server.redirect(request, "/a b?c=\u00e9#d")
    line, fields, body = split(bytes(request))
    assert line == "HTTP/1.1 301 Moved Permanently"
    assert fields["location"] == "/a%20b?c=%C3%A9#d"
    server.redirect(Request(), "/", 307)
    with pytest.raises(ValueError, match="not the code of a redirection"):
        server.redirect(request, "/", 200)


def test_quote_html() -> None:
    assert quote_html("<a href='\"'>&") == "&lt;a href=&#x27;&quot;&#x27;&gt;&amp;"


# ---- ranges ----


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("5-10", 100, (5, 10)),
        ("bytes=5-10", 100, (5, 10)),
        ("BYTES= 5-10 ", 100, (5, 10)),
        ("5-5", 6, (5, 5)),
        ("5-", 6, (5, 5)),
        ("5-10", 6, (5, 5)),
        ("-5", 100, (95, 99)),
        ("-500", 100, (0, 99)),
        ("0-", 1, (0, 0)),
        ("5000000000-5000000001", 6000000000, (5000000000, 5000000001)),
        ("9" * 40 + "-", 100, None),
        ("5-10", 5, None),
        ("-0", 100, None),
        ("-5", 0, None),
        ("0-", 0, None),
    ],
)
def test_ranges(text: str, size: int, expected: tuple[int, int] | None) -> None:
    wanted = RangedRequest(text)
    if expected is not None:
        assert wanted.resolve(size) == expected
        return
    with pytest.raises(InvalidRangeRequest, match="is among"):
        wanted.resolve(size)


@pytest.mark.parametrize(
    "text",
    [*"x-", "", "5", "10-5", "1-2-3", "--1", "+1-2", "1_0-20", "lines=1-2", "1-2,4-5", "\u0661-"]
    + ["9" * 41 + "-", "1-2\n", "1 -2"],
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidRangeRequest):
        RangedRequest(text)


def test_where_a_range_comes_from() -> None:
    request = Request()
    assert request.range is None
    request = Request()
    request.headers = Headers([("Range", "bytes=1-2")])
    assert repr(request.range) == "RangedRequest('1-2')"
    assert request.range_is_of_header
    request = Request()
    request.headers = Headers([("Range", "bytes=1-2")])
    request.query = {"range": "3-4"}
    assert repr(request.range) == "RangedRequest('3-4')"
    assert not request.range_is_of_header
    request.range = RangedRequest("5-")
    assert repr(request.range) == "RangedRequest('5-')"
    assert not request.range_is_broken
    request = Request()
    request.command = "HEAD"  # RFC 9110 section 14.2: for GET alone
    request.headers = Headers([("Range", "bytes=1-2")])
    assert request.range is None
    request = Request()
    request.query = {"range": "a-b"}
    assert request.range is None
    assert request.range_is_broken


def test_sendfile_without_a_transport(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "digits.txt"
    path.write_bytes(b"0123456789")
    server, request = HttpServer(), Request()
    request.range = RangedRequest("5-10")
    assert server.sendfile(request, path) is request
    line, fields, body = split(bytes(request))
    assert line == "HTTP/1.1 206 Partial Content"
    assert fields["content-range"] == "bytes 5-9/10"
    assert body == b"56789"
    assert bytes(server.sendfile(Request(), f"{path}\0")).startswith(b"HTTP/1.1 404 ")
    assert bytes(server.sendfile(Request(), tmp_path)).startswith(b"HTTP/1.1 404 ")


# ---- fields ----


def test_headers() -> None:
    headers = Headers([("Host", "a"), ("X-Many", "1"), ("x-many", " 2\t")])
    assert headers["HOST"] == headers.host == "a"
    assert headers.x_many == "1"
    assert headers.absent is None
    assert headers.get_all("x-MANY") == ["1", "2"]
    assert headers.joined("X-Many") == "1, 2"
    assert headers.joined("Absent") is headers.get("Absent") is None
    assert list(headers) == ["Host", "X-Many", "x-many"]
    assert len(headers) == 3
    assert "host" in headers
    assert 1 not in headers
    headers["X-MANY"] = "3"
    assert headers.items() == [("Host", "a"), ("X-MANY", "3")]
    assert headers == Headers(headers.items())
    assert copy.copy(headers) == headers
    del headers["host"]
    for action in (lambda: headers["host"], lambda: headers.__delitem__("host")):
        with pytest.raises(KeyError):
            action()


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\n"), ("a", "\0")]
)
def test_fields_that_cannot_be(name: str, value: str) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="a header field"):
        headers.add(name, value)
    with pytest.raises(ValueError, match="a header field"):
        headers[name] = value
    assert len(headers) == 0


# ---- dates ----


def test_dates() -> None:
    assert date_time_string(NINETY_FOUR) == "Sun, 06 Nov 1994 08:49:37 GMT"
    before = int(time.time())
    now = parse_date(date_time_string())
    assert now is not None
    assert before <= now <= time.time()
    assert tuple(gmtime(NINETY_FOUR))[:6] == (1994, 11, 6, 8, 49, 37)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_the_three_forms_of_a_date(text: str) -> None:
    assert parse_date(text) == NINETY_FOUR


@pytest.mark.parametrize("text", ["", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT", "0", "\u0661"])
def test_what_is_no_date(text: str) -> None:
    assert parse_date(text) is None


# ---- paths ----


def test_paths(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "a b").mkdir(parents=True)
    (tmp_path / "root2").mkdir()
    (root / "link").symlink_to("a b")
    (root / "out").symlink_to(tmp_path / "root2")
    real = os.path.realpath(root)
    assert translate_path("/", root) == real
    assert translate_path("/a%20b/x?q=../..", root) == f"{real}/a b/x"
    assert translate_path("/link/", root) == f"{real}/a b"
    assert translate_path("/.well-known/x", root) == f"{real}/.well-known/x"
    monkeypatch.chdir(root)
    assert translate_path("/x") == f"{real}/x"
    assert translate_path("/etc", "/") == os.path.realpath("/etc")
    for path in ("", "x", "//", "/../root2", "/%2e%2e/root2", "/out", "/out/x", "/a%2fb"):
        with pytest.raises(ValueError, match=r"\w"):
            translate_path(path, root)
    for path in ("/.", "/a//b", "/%00", "/%ff", "/.git", "/%2egit/config", "/a/./b"):
        with pytest.raises(ValueError, match=r"\w"):
            translate_path(path, root)


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("x.html", "text/html; charset=utf-8"),
        ("X.TXT", "text/plain; charset=utf-8"),
        ("x.json", "application/json"),
        ("x.tar.gz", "application/gzip"),
        ("dir.html/x", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_types(path: str, media: str) -> None:
    assert guess_type(path) == media
