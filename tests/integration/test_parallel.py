"""The parallel API: protocols on real sockets, wherever contexts live and however it is started."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import struct
import sys
from collections.abc import Iterator

import pytest
import serving
from protocolsite import Peer, Site, launch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

SETUPS = [
    (1, "auto"),
    (2, "processes"),
    (2, "threads"),
    *([(2, "interpreters")] if sys.version_info >= (3, 13) else []),
]


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    contexts, place = request.param
    with serving.stopping(launch(tmp_path_factory.mktemp("site"), contexts, place)) as server:
        server.wait_started()
        server.allow(serving.EXPECTED)
        server.allow("a callback must return")
        server.allow("is not JSON serializable")
        server.allow("sendfile: only within")
        yield Site(server, contexts)


# ---- raw protocols ----


def test_echo(site: Site) -> None:
    with site.connect("echo") as peer:
        for text in (b"a", b"some more", b"x" * 10_000):
            peer.say(text)
            assert peer.read(len(text)) == text


def test_what_a_transport_knows(site: Site) -> None:
    with site.connect("echo") as peer:
        assert peer.ask(b"hello") == b"hello"
        expected = f"2 2 1 2 12 5 7 True {site.ports['echo']}"
        assert peer.ask(b"numbers") == expected.encode()


def test_close_sends_what_is_returned_first(site: Site) -> None:
    before = site.server.records().count("closed close")
    with site.connect("echo") as peer:
        peer.say(b"quit")
        assert peer.read(3) == b"bye"
        assert peer.ended()
    site.server.wait_for_record("closed close", before + 1)


def test_the_peer_says_that_it_has_done(site: Site) -> None:
    with site.connect("echo") as peer:
        peer.say(b"last words")
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.read(10) == b"last words"
        assert peer.ended()


def test_a_reset_is_a_loss(site: Site) -> None:
    before = site.server.records().count("lost")
    with site.connect("echo") as peer:
        assert peer.ask(b"here") == b"here"
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    site.server.wait_for_record("lost", before + 1)


def test_returning_none_sends_nothing(site: Site) -> None:
    before = site.server.records().count("nothing")
    with site.connect("echo") as peer:
        peer.say(b"nothing")
        site.server.wait_for_record("nothing", before + 1)
        assert peer.ask(b"again") == b"again"


def test_a_slow_callback_holds_nobody_up(site: Site) -> None:
    """The others of its context are served by another thread meanwhile."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(site.connect("echo")) for _ in range(4)]
        quick = [stack.enter_context(site.connect("echo")) for _ in range(8)]
        for peer in slow:
            peer.say(b"slow")
        for peer in quick:
            assert peer.ask(b"quick") == b"quick"
        for peer in slow:
            assert peer.read(4) == b"slow"
            assert peer.ask(b"on") == b"on"


def test_every_context_serves_what_was_run_once(site: Site) -> None:
    contexts = site.contexts if "processes" in site.server.command else 1
    where, runs = set(), set()
    with contextlib.ExitStack() as stack:
        for count in range(400):  # While one gets no processor, its neighbours accept for it.
            context, run = stack.enter_context(site.connect("echo")).ask(b"who").split()
            where.add(context.partition(b".")[0])
            runs.add(run)
            if count >= 16 and len(where) == contexts:
                break
    assert (len(where), len(runs)) == (contexts, 1)


def test_lines(site: Site) -> None:
    with site.connect("lines") as peer:
        peer.say(b"one\r\ntwo\nthr")
        assert peer.read(10) == b"[one][two]"
        peer.say(b"ee\n\n")
        assert peer.read(9) == b"[three][]"
        peer.say(b"the last one")
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.read(14) == b"[the last one]"
        assert peer.ended()


def test_a_line_without_end_is_refused(site: Site) -> None:
    text = "error the peer sent a line of more than 100 bytes"
    before = site.server.records().count(text)
    with site.connect("lines") as peer:
        peer.say(b"fine\n" + b"x" * 101)
        assert peer.read(6) == b"[fine]"
        assert peer.ended()
    site.server.wait_for_record(text, before + 1)


def test_chargen_goes_on_for_ever(site: Site) -> None:
    with site.connect("chargen") as peer:
        for number in range(2000):
            assert peer.stream.readline() == b"%d\n" % number


def test_constants_to_send(site: Site) -> None:
    with site.connect("cheating") as peer:
        assert peer.read(5) == b"first"
        for _ in range(3):
            assert peer.ask(b"anything") == b"next"


@pytest.mark.parametrize("what", [b"value", b"type"])
def test_an_exception_ends_its_connection_alone(site: Site, what: bytes) -> None:
    with site.connect("failing") as peer, site.connect("echo") as other:
        peer.say(what)
        assert peer.ended()
        assert other.ask(b"alive") == b"alive"


def test_exception_handler_answers(site: Site) -> None:
    with site.connect("handling") as peer:
        assert peer.ask(b"it") == b"handled ValueError it"
        assert peer.ask(b"again") == b"handled ValueError again"


def test_data_sent_and_send_failed(site: Site) -> None:
    records = site.server.records
    before = records().count("sent 1000")
    with site.connect("sent") as peer:
        peer.say(b"a")
        assert peer.read(1000) == b"a" * 1000
    site.server.wait_for_record("sent 1000", before + 1)
    failed = len([line for line in records() if line.startswith("failed")])
    with site.connect("sent") as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.say(b"b" * 16384)
        assert peer.read(1) == b"b"
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    serving.wait_until(
        lambda: len([line for line in records() if line.startswith("failed")]) == failed + 1
    )


def test_a_limit_on_the_rate(site: Site) -> None:
    """What it does to time is for the test's own clock (net_raw.c); here, that all arrives."""
    with site.connect("limited") as peer:
        peer.say(b"go")
        assert peer.read(1_100_000) == b"x" * 1_100_000


def test_silence_is_a_time_out(site: Site) -> None:
    before = site.server.records().count("timed out None")
    with site.connect("quiet") as peer:
        assert peer.ask(b"hello") == b"hello"
        assert peer.ended()
    site.server.wait_for_record("timed out None", before + 1)
    with site.connect("quiet") as peer:
        # What takes long is no silence of the peer's.
        peer.say(b"slow")
        assert peer.read(4) == b"slow"


def test_a_flood_is_answered_in_order(site: Site) -> None:
    """More than either side's buffers hold, read late: back-pressure, and no byte out of place."""
    data = b"".join(b"%08d" % number for number in range(500_000))
    with site.connect("echo") as peer:
        received = bytearray()
        peer.socket.setblocking(False)
        sent = 0
        while len(received) < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += peer.socket.send(data[sent : sent + 262144])
            with contextlib.suppress(BlockingIOError):
                received += peer.socket.recv(262144)
        assert received == data


# ---- files ----


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("files") / "numbers"
    path.write_bytes(b"".join(b"%07d\n" % number for number in range(500_000)))
    return path


def test_a_whole_file(site: Site, numbers: pathlib.Path) -> None:
    content = numbers.read_bytes()
    with site.connect("files") as peer:
        for _ in range(2):
            peer.say(f"{numbers}\n".encode())
            assert peer.read(len(content) + 2) == b"<" + content + b"|"


def test_a_file_that_is_not_in_memory(site: Site, numbers: pathlib.Path) -> None:
    content = numbers.read_bytes()
    with numbers.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with site.connect("files") as peer:
        peer.say(f"{numbers}\n".encode())
        assert peer.read(len(content) + 2) == b"<" + content + b"|"


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 1), (3_999_999, 1), (4095, 2), (100, 1_000_000), (4_000_000, 0)]
)
def test_a_part_of_a_file(site: Site, numbers: pathlib.Path, offset: int, count: int) -> None:
    content = numbers.read_bytes()[offset : offset + count]
    with site.connect("files") as peer:
        peer.say(f"{numbers}|{offset}|{count}\n".encode() * 2)
        assert peer.read(2 * (count + 3)) == (b"<" + content + b">|") * 2


def test_beyond_four_gigabytes(site: Site, tmp_path: pathlib.Path) -> None:
    path, at = tmp_path / "sparse", 5 * 2**30
    with path.open("wb") as file:
        file.seek(at)
        file.write(b"the end")
    with site.connect("files") as peer:
        peer.say(f"{path}|{at - 3}|10\n".encode())
        assert peer.read(13) == b"<\0\0\0the end>|"
        peer.say(f"{path}|{at}|8\n".encode())
        assert peer.read(11) == b"ValueError|"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("absent", b"FileNotFoundError|"),
        (".", b"IsADirectoryError|"),
        ("fifo", b"OSError|"),
        ("numbers|-1|2", b"ValueError|"),
        ("numbers|0|-1", b"ValueError|"),
        ("numbers|1|4000000", b"ValueError|"),
        ("numbers|5000000|0", b"ValueError|"),
        ("numbers|99999999999999999999|0", b"OverflowError|"),
        ("nul\0", b"ValueError|"),
    ],
)
def test_files_that_cannot_be_sent(
    site: Site, numbers: pathlib.Path, name: str, error: bytes
) -> None:
    if name == "fifo" and not (numbers.parent / "fifo").exists():
        os.mkfifo(numbers.parent / "fifo")
    with site.connect("files") as peer:
        peer.say(f"{numbers.parent}/{name}\n".encode())
        assert peer.read(len(error)) == error
        peer.say(f"{numbers}|0|3\n".encode())
        assert peer.read(6) == b"<000>|"


# ---- http11 protocols ----


def test_plaintext(site: Site) -> None:
    with site.http() as client:
        for _ in range(3):
            client.request("GET", "/plaintext?a=b")
            response = client.getresponse()
            assert response.status == 200
            assert response.read() == b"Hello, World!"
            assert response.headers["Content-Length"] == "13"
            assert response.headers["Content-Type"] == "text/plain"
            assert response.headers["Server"] == "ppserver"
            assert response.headers["Date"].endswith(" GMT")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "answer", "media"),
    [
        ("GET", "/text", None, 200, "\N{SNOWMAN}".encode(), "text/plain; charset=utf-8"),
        ("GET", "/plaintext/and/more", None, 200, b"Hello, World!", "text/plain"),
        ("HEAD", "/plaintext", None, 200, b"", "text/plain"),
        ("POST", "/body", b"some", 200, b"some", "text/plain"),
        ("POST", "/body", b"x" * 65536, 200, b"x" * 65536, "text/plain"),
        ("POST", "/body", b"xy" * 32769, 200, b"xy" * 32769, "text/plain"),
        ("POST", "/body", b"z" * 1048576, 200, b"z" * 1048576, "text/plain"),
        ("POST", "/body", b"z" * 1048577, 413, b"Content Too Large", None),
        ("GET", "/nothing", None, 204, b"", None),
        ("GET", "/absent", None, 404, b"Not Found", None),
        ("GET", "/plaintex", None, 404, b"Not Found", None),
        ("GET", "/", None, 404, b"Not Found", None),
        ("GET", "/count", None, 404, b"Not Found", None),
        ("GET", "/__init__", None, 404, b"Not Found", None),
        ("GET", "/mapping", None, 200, b'{"message": "Hello, \\u2603"}', "application/json"),
        ("GET", "/no_json", None, 500, None, None),
        ("GET", "/fail", None, 500, None, None),
        ("GET", "/wrong", None, 500, None, None),
        ("GET", "/file", None, 500, None, None),
        ("GET", "/big", None, 200, b"x" * 1_000_000, "text/plain"),
    ],
)
def test_answers(
    site: Site,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    answer: bytes | None,
    media: str | None,
) -> None:
    with site.http() as client:
        client.request(method, path, body)
        response = client.getresponse()
        assert response.status == status
        text = response.read()
        assert answer is None or text == answer
        assert b"Traceback" not in text
        assert media is None or response.headers["Content-Type"] == media


def test_chunked_bodies(site: Site) -> None:
    with site.http() as client:
        for pieces in ([b"a", b"b"], [b"", b"x" * 100_000, b"y" * 200_000], [b"z" * 1_048_576]):
            client.request("POST", "/body", iter(pieces), encode_chunked=True)
            response = client.getresponse()
            assert (response.status, response.read()) == (200, b"".join(pieces))
        client.request("POST", "/body", iter([]), encode_chunked=True)
        assert client.getresponse().read() == b""
    with Peer(site.ports["http"]) as peer:
        peer.say(b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.say(b"200000\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(17):
                peer.say(b"x" * 65536)
        assert peer.stream.readline().startswith(b"HTTP/1.1 413 ")


def test_a_body_that_is_waited_for(site: Site) -> None:
    with Peer(site.ports["http"]) as peer:
        peer.say(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n")
        peer.say(b"Expect: 100-continue\r\n\r\n")
        assert peer.stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert peer.stream.readline() == b"\r\n"
        for _ in range(7):
            peer.say(b"x" * 10_000)
        assert peer.stream.readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_body_that_does_not_come(site: Site) -> None:
    with Peer(site.ports["http"]) as peer:
        peer.say(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\nxx")
    with Peer(site.ports["http"]) as peer:
        peer.say(b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx")
    with Peer(site.ports["http"]) as peer:
        peer.say(b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert peer.stream.readline().startswith(b"HTTP/1.1 400 ")
    with site.http() as client:
        client.request("GET", "/plaintext")
        assert client.getresponse().status == 200


def test_an_object_for_each_connection(site: Site) -> None:
    for _ in range(2):
        with site.http() as client:
            for number in range(1, 4):
                client.request("GET", "/count_up")
                assert client.getresponse().read() == b"%d" % number


def test_one_object_for_all(site: Site) -> None:
    with site.http("one") as client:
        client.request("GET", "/name_of")
        assert client.getresponse().read() == b"the one"


def test_close_after_an_answer(site: Site) -> None:
    with site.http() as client:
        client.request("GET", "/bye")
        response = client.getresponse()
        assert response.headers["Connection"] == "close"
        assert response.read() == b"bye"
        client.request("GET", "/plaintext")  # By a connection of its own.
        assert client.getresponse().read() == b"Hello, World!"


def test_pipelined(site: Site) -> None:
    paths = [b"/plaintext", b"/count_up", b"/absent", b"/slow", b"/count_up"]
    with Peer(site.ports["http"]) as peer:
        peer.say(b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths))
        bodies = []
        for _ in paths:
            length = 0
            while (line := peer.stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
            bodies.append(peer.read(length))
        assert bodies == [b"Hello, World!", b"1", b"Not Found", b"slow", b"2"]


def test_malformed_requests(site: Site) -> None:
    with Peer(site.ports["http"]) as peer:
        peer.say(b"GET /plaintext HTTP/1.1\r\n\r\n")
        assert peer.stream.readline().startswith(b"HTTP/1.1 400 ")
