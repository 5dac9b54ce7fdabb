"""`parallel.http.server` over sockets: requests, files, ranges, mistakes of peers and handlers."""

from __future__ import annotations

import json
import os
import pathlib
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
import serving
from rawhttp import Raw, Response

pytest.importorskip("h11")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

SETUPS = [(1, "auto"), (2, "processes"), (2, "threads")]
DIGITS = "".join(f"{number:05d}" for number in range(20_000))  # 100,000 bytes


class Site:
    def __init__(self, server: serving.Server, folder: pathlib.Path) -> None:
        self.server = server
        self.folder = folder

    def ask(self, target: str, *headers: str, **options: Any) -> Response:
        with Raw(self.server) as raw:
            return raw.ask(target, *headers, **options)

    def json(self, target: str, *headers: str) -> Any:
        answer = self.ask(target, *headers)
        assert answer.status == 200, answer
        assert answer.get("content-type") == "application/json"
        return json.loads(answer.body)


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    contexts, place = request.param
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    folder = tmp_path_factory.mktemp("root")
    (folder / "digits.txt").write_text(DIGITS)
    (folder / "empty").write_text("")
    (folder / ".hidden").write_text("hidden")
    (folder / "page.html").write_text("<p>page</p>")
    (folder / "sub").mkdir()
    (folder / "sub" / "naïve & <odd>.txt").write_text("odd")
    (folder / "with index").mkdir()
    (folder / "with index" / "index.html").write_text("<p>index</p>")
    (folder / "way out").symlink_to(outside)
    (folder / "file out").symlink_to(outside / "secret.txt")
    (folder / "inside").symlink_to("digits.txt")
    os.mkfifo(folder / "pipe")
    server = serving.launch(
        "slow_http.py", folder, contexts=contexts, place=place, args=["--no-access-log"]
    )
    with serving.stopping(server):
        server.wait_for_log("(?s)running on.*running on")
        server.wait_started()
        server.allow(serving.EXPECTED)
        server.allow("a handler returns the request")
        server.allow("not the value of a header field")
        yield Site(server, folder)


# ---- requests and handlers ----


def test_answers(site: Site) -> None:
    answer = site.ask("/plain")
    assert (answer.version, answer.status, answer.reason) == ("HTTP/1.1", 200, "OK")
    assert answer.body == b"Hello"
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.get("content-length") == "5"
    assert answer.get("server") == "ppserver"
    assert answer.get("date") is not None
    with Raw(site.server) as raw:
        raw.request("/plain", method="HEAD")
        head = raw.read_response(to_head=True)
        assert head.get("content-length") == "5"
        assert raw.ask("/plain").body == b"Hello"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/arguments", [None, "5", {}]),
        ("/arguments/Python?limit=3", ["Python", "3", {}]),
        ("/arguments/a/b%20c?x=1&y=%C3%A9", ["a/b c", "5", {"x": "1", "y": "é"}]),
        ("/arguments/?limit=", [None, "", {}]),
        ("/arguments?path=x&request=y&self=z", ["x", "5", {}]),
        ("/arguments/%C3%A9%2Fx", ["é/x", "5", {}]),
        ("/original", {"routes": ["/else/where", "/elsewhere", "/original"]}),
    ],
)
def test_arguments(site: Site, target: str, expected: Any) -> None:
    assert site.json(target) == expected


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/nothing_else", b"nothing else"),
        ("/nothing_else/more?and=more", b"nothing else"),
        ("/elsewhere", b"None"),
        ("/else/where/further", b"further"),
        ("/needs/path?limit=3", b"path 3"),
        ("/merged?what=1", b"Other 1 1"),
        ("/html?text=x", b"<p>x</p>"),
        ("/old/style", b"old style"),
        ("/old_style/?and=more", b"old style"),
    ],
)
def test_bodies(site: Site, target: str, body: bytes) -> None:
    answer = site.ask(target)
    assert (answer.status, answer.body) == (200, body)


def test_what_is_merged_has_an_object_for_each_connection(site: Site) -> None:
    with Raw(site.server) as raw:
        assert raw.ask("/merged").body == b"Other None 1"
        assert raw.ask("/merged").body == b"Other None 2"
    assert site.ask("/merged").body == b"Other None 1"


def test_what_a_request_tells(site: Site) -> None:
    answer = site.ask("/about/x%20y?a=1&b=&a=2", "X-Some: thing", "Range: bytes=5-10")
    assert answer.get("x-one") == "1"
    assert answer.get("x-two") == "2"
    told = json.loads(answer.body)
    assert told["query"] == {"a": "2", "b": ""}
    assert told["path"] == "/about/x y"
    assert told["raw_path"] == "/about/x%20y?a=1&b=&a=2"
    assert told["fragment"] == ""
    assert told["headers"]["Host"] == "test"
    assert told["headers"]["X-Some"] == "thing"
    assert (told["command"], told["version"], told["keep_alive"]) == ("GET", "HTTP/1.1", True)
    assert told["range"] == "RangedRequest('5-10')"
    assert told["ip"] == "127.0.0.1"


def test_bodies_of_requests(site: Site) -> None:
    with Raw(site.server) as raw:
        assert raw.ask("/echo", method="POST", body=b"some").body == b"some"
        raw.request("/echo", "Transfer-Encoding: chunked", method="PUT")
        raw.send(b"4\r\nWiki\r\n")
        raw.send(b"5;x=y\r\npedia\r\n0\r\nTrailer: x\r\n\r\n")
        assert raw.read_response().body == b"Wikipedia"
        body = os.urandom(100_000)
        assert raw.ask("/echo", method="POST", body=body).body == body
        raw.request("/echo", "Expect: 100-continue", "Content-Length: 2", method="POST")
        assert raw.read_head().status == 100
        raw.send(b"ok")
        assert raw.read_response().body == b"ok"


def test_keep_alive(site: Site) -> None:
    with Raw(site.server) as raw:
        for _ in range(3):
            assert raw.ask("/plain").get("connection") is None
        last = raw.ask("/last")
        assert last.get("connection") == "close"
        assert raw.is_closed()
    with Raw(site.server) as raw:
        raw.send(b"GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert raw.read_response().get("connection") == "keep-alive"
        raw.send(b"GET /plain HTTP/1.0\r\n\r\n")
        assert raw.read_response().get("connection") == "close"
        assert raw.is_closed()


def test_pipelined_with_files_in_between(site: Site) -> None:
    """In order: what is sent from memory does not overtake what is sent from a file."""
    targets = ["/plain", "/digits.txt", "/plain", "/file/digits.txt?piece=5-9", "/big?count=300000"]
    with Raw(site.server) as raw:
        raw.send(b"".join(f"GET {t} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for t in targets * 20))
        for _ in range(20):
            bodies = [raw.read_response().body for _ in targets]
            assert bodies[0] == bodies[2] == b"Hello"
            assert bodies[1] == DIGITS.encode()
            assert bodies[3] == b"00001"
            assert bodies[4] == b"x" * 300_000


def test_many_requests_for_a_peer_that_does_not_read(site: Site) -> None:
    """It is not read either, beyond a bound; others are served meanwhile."""
    with Raw(site.server) as raw:
        request = b"GET /big?count=100000 HTTP/1.1\r\nHost: a\r\n\r\n"
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.socket.settimeout(1.0)
        sent = 0
        try:
            while sent < 200_000:
                raw.send(request * 100)
                sent += 100
        except TimeoutError:
            pass
        assert sent < 200_000
        assert site.ask("/plain").body == b"Hello"


# ---- refusals ----


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/absent", 404),
        ("GET", "/%ff", 400),
        ("GET", "/plain/%ff", 400),
        ("GET", "/arguments?x=%ff", 400),
        ("GET", "/arguments?x=a%00b", 400),
        ("GET", "/%00", 400),
        ("POST", "/plain", 405),
        ("GET", "/echo", 405),
        ("BREW", "/plain", 501),
        ("POST", "/absent", 501),
        ("GET", "/needs/path", 400),
        ("GET", "/needs", 400),
        ("POST", "/old/style", 501),
        ("GET", "/helper", 404),
        ("GET", "/" + "x" * 9000, 414),
        ("GET", "/wrong?code=418", 418),
        ("OPTIONS", "*", 501),
    ],
)
def test_errors(site: Site, method: str, target: str, status: int) -> None:
    with Raw(site.server) as raw:
        raw.request(target, method=method)
        answer = raw.read_response()
        assert answer.status == status
        assert answer.get("x-evil") is None
        assert b"Traceback" not in answer.body
        assert answer.get("allow") == {"/plain": "GET, HEAD", "/echo": "POST, PUT"}.get(
            target if status == 405 else ""
        )
        if status == 414:
            assert raw.is_closed()
        else:
            assert raw.ask("/plain").body == b"Hello"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: a-coffee\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
    ],
)
def test_malformed(site: Site, sent: bytes, status: int) -> None:
    with Raw(site.server) as raw:
        raw.send(sent)
        answer = raw.read_response()
        assert answer.status == status
        assert answer.get("connection") == "close"
        assert raw.is_closed()


@pytest.mark.parametrize("how", ["raise", "type", "1"])
def test_a_handler_that_fails(site: Site, how: str) -> None:
    with Raw(site.server) as raw:
        answer = raw.ask(f"/fail?how={how}")
        assert answer.status == 500
        assert answer.body == b"500 Internal Server Error\n"
        assert answer.get("x-evil") is answer.get("x-bad") is None
        assert raw.ask("/plain").body == b"Hello"
    site.server.wait_for_log("a handler failed")


def test_redirections(site: Site) -> None:
    answer = site.ask("/redirect_to?where=/plain?x=%C3%A9")
    assert answer.status == 301
    assert answer.get("location") == "/plain?x=%C3%A9"
    answer = site.ask("/redirect_to?where=/%0d%0aX-Evil:1")
    assert answer.get("x-evil") is None
    assert answer.get("location") == "/%0D%0AX-Evil:1"


def test_a_peer_that_resets_harms_nobody(site: Site) -> None:
    for sent in (b"GET /dig", b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"):
        with Raw(site.server) as raw:
            raw.send(sent)
            raw.reset()
    with Raw(site.server) as raw:
        raw.request("/digits.txt")
        raw.read_head()
        raw.reset()
    assert site.ask("/plain").body == b"Hello"


# ---- time ----


def impatient(site: Site) -> Raw:
    """A connection to the server that does not wait long."""
    raw = Raw(site.server)
    raw.socket.close()
    ports = re.findall(r"running on http://127\.0\.0\.1:(\d+)", site.server.log)
    raw.socket = socket.create_connection(("127.0.0.1", int(ports[1])), serving.MUST_SECONDS)
    return raw


@pytest.mark.parametrize("said", [b"", b"GET /plain HTTP/1.1\r\nHost: a"])
def test_silence_ends_a_connection(site: Site, said: bytes) -> None:
    with impatient(site) as raw:
        assert raw.ask("/plain").body == b"Hello"
        raw.send(said)
        assert raw.is_closed()


def test_a_request_that_comes_slowly(site: Site) -> None:
    with impatient(site) as raw:
        raw.send(b"GET /plain HTTP/1.1\r\n")
        answered = False
        for number in range(100):
            # Often enough not to be silent.
            answered = bool(select.select([raw.socket], [], [], 0.1)[0])
            if answered:
                break
            raw.send(b"X-%d: y\r\n" % number)
        assert answered
        assert raw.read_response().status == 408
        assert raw.is_closed()


def test_a_handler_that_takes_long_is_waited_for(site: Site) -> None:
    with impatient(site) as raw:
        assert raw.ask("/slow?seconds=0.8").body == b"slow"


# ---- files ----


def test_a_file(site: Site) -> None:
    answer = site.ask("/digits.txt")
    assert answer.body == DIGITS.encode()
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.get("accept-ranges") == "bytes"
    assert site.ask("/inside").body == DIGITS.encode()
    assert site.ask("/empty").body == b""
    assert site.ask("/page.html").get("content-type") == "text/html; charset=utf-8"
    with Raw(site.server) as raw:
        raw.request("/digits.txt", method="HEAD")
        head = raw.read_response(to_head=True)
        assert (head.status, head.get("content-length")) == (200, "100000")


def test_directories(site: Site) -> None:
    answer = site.ask("/sub")
    assert (answer.status, answer.get("location")) == (301, "/sub/")
    listing = site.ask("/sub/").body.decode()
    assert '<a href="./na%C3%AFve%20%26%20%3Codd%3E.txt">naïve &amp; &lt;odd&gt;.txt</a>' in listing
    assert site.ask("/sub/na%C3%AFve%20%26%20%3Codd%3E.txt").body == b"odd"
    assert site.ask("/with%20index/").body == b"<p>index</p>"
    top = site.ask("/").body.decode()
    assert "digits.txt" in top
    assert ".hidden" not in top


@pytest.mark.parametrize(
    "target",
    [
        "/../outside/secret.txt",
        "/sub/../../outside/secret.txt",
        "/%2e%2e/outside/secret.txt",
        "/..%2foutside%2fsecret.txt",
        "/%2e%2e%2foutside/secret.txt",
        "//etc/passwd",
        "/sub//digits.txt",
        "/./digits.txt",
        "/way%20out/secret.txt",
        "/way%20out/",
        "/file%20out",
        "/.hidden",
        "/%2ehidden",
        "/digits.txt/",
        "/digits.txt/x",
        "/pipe",
        "/sub/%5c..%5cdigits.txt",
        "/" + "x" * 300,
    ],
)
def test_what_is_outside_or_no_file(site: Site, target: str) -> None:
    answer = site.ask(target)
    assert answer.status == 404
    assert b"secret" not in answer.body.replace(b"secret.txt", b"")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("0-0", (0, 1)),
        ("5-9", (5, 10)),
        ("99999-", (99_999, 100_000)),
        ("99990-200000", (99_990, 100_000)),
        ("-5", (99_995, 100_000)),
        ("-200000", (0, 100_000)),
        ("0-", (0, 100_000)),
        ("100000-", None),
        ("-0", None),
    ],
)
def test_ranges(site: Site, wanted: str, expected: tuple[int, int] | None) -> None:
    for answer in (
        site.ask("/digits.txt", f"Range: bytes={wanted}"),
        site.ask(f"/digits.txt?range={wanted}"),
        site.ask(f"/file/digits.txt?piece={wanted}"),
    ):
        if expected is None:
            assert answer.status == 416
            assert answer.get("content-range") == "bytes */100000"
            continue
        start, stop = expected
        assert answer.status == 206
        assert answer.get("content-range") == f"bytes {start}-{stop - 1}/100000"
        assert answer.body == DIGITS[start:stop].encode()


@pytest.mark.parametrize("wanted", ["", "-", "5", "9-5", "a-b", "0-1,3-4", "--5", "\u0661-\u0662"])
def test_what_is_no_range(site: Site, wanted: str) -> None:
    """In the query it is the mistake of who wrote it; in the field it is to be ignored."""
    quoted = "".join(f"%{byte:02x}" for byte in wanted.encode())
    assert site.ask(f"/digits.txt?range={quoted}").status == 400
    if wanted.isascii():
        assert site.ask("/digits.txt", f"Range: bytes={wanted}").status == 200
        assert site.ask("/digits.txt", f"Range: lines={wanted}").status == 200


def test_a_broken_range_of_a_handler(site: Site) -> None:
    assert site.ask("/file/digits.txt?piece=9-5").status == 400


def test_conditions(site: Site) -> None:
    path = site.folder / "conditions.txt"
    path.write_text("conditions")
    then = int(time.time()) - 100
    os.utime(path, (then, then))
    plain = site.ask("/conditions.txt")
    etag, modified = plain.get("etag"), plain.get("last-modified")
    assert etag is not None
    assert modified == formatdate(then, usegmt=True)
    before, after = formatdate(then - 1, usegmt=True), formatdate(then + 1, usegmt=True)

    def status(*headers: str) -> int:
        return site.ask("/conditions.txt", *headers).status

    assert status(f"If-None-Match: {etag}") == 304
    assert status(f'If-None-Match: "other", W/{etag}') == 304
    assert status('If-None-Match: "other"') == 200
    assert status("If-None-Match: *") == 304
    assert status(f"If-Modified-Since: {modified}") == 304
    assert status(f"If-Modified-Since: {after}") == 304
    assert status(f"If-Modified-Since: {before}") == 200
    assert status("If-Modified-Since: yesterday") == 200
    assert status('If-None-Match: "x"', f"If-Modified-Since: {modified}") == 200
    assert status(f"If-Match: {etag}") == 200
    assert status('If-Match: "other"') == 412
    assert status(f"If-Unmodified-Since: {before}") == 412
    wanted = "Range: bytes=0-3"
    assert status(wanted, f"If-Range: {etag}") == 206
    assert status(wanted, 'If-Range: "other"') == 200
    assert status(wanted, f"If-Range: W/{etag}") == 200
    assert status(wanted, f"If-Range: {modified}") == 206
    assert status(wanted, f"If-Range: {before}") == 200
    unchanged = site.ask("/conditions.txt", f"If-None-Match: {etag}")
    assert unchanged.body == b""
    assert unchanged.get("etag") == etag


def test_beyond_four_gigabytes(site: Site) -> None:
    path = site.folder / "sparse"
    far = (1 << 32) + 12_345
    with path.open("wb") as file:
        file.truncate(far + 10)
        file.seek(far)
        file.write(b"0123456789")
    answer = site.ask("/sparse", f"Range: bytes={far + 2}-{far + 5}")
    assert answer.status == 206
    assert answer.body == b"2345"
    assert answer.get("content-range") == f"bytes {far + 2}-{far + 5}/{far + 10}"
    with Raw(site.server) as raw:
        raw.request("/sparse", method="HEAD")
        assert raw.read_response(to_head=True).get("content-length") == str(far + 10)
    path.unlink()


def test_a_large_file_for_a_slow_reader(site: Site) -> None:
    """Others of the same context are served meanwhile, and every byte comes."""
    path = site.folder / "large"
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(32):
            file.write(block)
    with Raw(site.server) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.request("/large")
        head = raw.read_head()
        assert head.get("content-length") == str(32 << 20)
        asked: list[bytes] = []

        def others() -> None:
            asked.extend(site.ask("/plain").body for _ in range(20))

        thread = threading.Thread(target=others)
        thread.start()
        thread.join(serving.MUST_SECONDS)
        assert asked == [b"Hello"] * 20
        for _ in range(32):
            assert raw.read_exactly(1 << 20) == block
    path.unlink()


def test_the_same_bytes_by_python_and_by_the_command(site: Site) -> None:
    """A program is served alike, however it is started; what differs is the date."""
    environ = serving.script_environment(site.folder, {"PPSERVER_CORES": "1"})
    program = str(serving.ROOT / "tests" / "apps" / "slow_http.py")
    other = serving.Server([sys.executable, program], environ, site.folder)
    targets = ["/plain", "/about?a=1", "/digits.txt", "/sub/", "/absent", "/arguments/x?y=z"]
    requests = [f"GET {target} HTTP/1.1\r\nHost: a\r\n".encode() for target in targets]
    requests += [request + b"Range: bytes=5-9\r\n" for request in requests]
    sent = b"\r\n".join(requests) + b"Connection: close\r\n\r\n"

    def bytes_of(server: serving.Server) -> bytes:
        with Raw(server) as raw:
            raw.send(sent)
            return re.sub(rb"\r\nDate: [^\r]*", b"", raw.read_to_end())

    try:
        other.wait_for_log("(?s)running on.*running on")
        other.wait_started()
        here, there = bytes_of(site.server), bytes_of(other)
        assert here.count(b"HTTP/1.1 ") == 2 * len(targets)
        assert here.startswith(
            b"HTTP/1.1 200 OK\r\nServer: ppserver\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 5\r\n\r\nHello"
        )
        assert here == there
        other.stop()
    except BaseException:
        other.kill()
        other.wait()
        raise
