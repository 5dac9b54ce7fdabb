"""Each limit and time-out has a number, a flag and an answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import serving
from rawhttp import ClosedError, Raw

pytestmark = pytest.mark.skipif(
    serving.PEER != "ppserver", reason="what is refused, and how, is each server's own"
)

GET = b"GET /hello?id=%s HTTP/1.1\r\nHost: a\r\n\r\n"
Start = Callable[..., serving.Server]


@pytest.fixture(scope="module")
def start(serve: Start, loop: str) -> Callable[[Sequence[str]], serving.Server]:
    return lambda args: serve("wire:app", loop=loop, args=["--no-access-log", *args])


def closed(raw: Raw) -> bool:
    try:
        return raw.read_to_end() == b""
    except ConnectionResetError:
        return True


def records_of(server: serving.Server, mark: str) -> list[str]:
    return [line for line in server.records() if mark in line]


# ---- time ----

SHORT = ["--timeout-request-header", "0.4", "--timeout-keep-alive", "0.4"]
SHORT += ["--timeout-body-idle", "0.4", "--timeout-write", "0.4"]


def limits(**seconds: float) -> list[str]:
    """Those that are named; no test waits for the others."""
    named = {"request_header": 600.0, "keep_alive": 600.0, "body_idle": 600.0, "write": 600.0}
    pairs = {**named, **seconds}.items()
    return [f"--timeout-{name.replace('_', '-')}={value}" for name, value in pairs]


@pytest.mark.slow
@pytest.mark.parametrize(
    "begun", [b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX:"]
)
def test_header_time(start: Start, begun: bytes) -> None:
    server = start(limits(request_header=0.4))
    with Raw(server) as raw:
        raw.send(begun)
        response = raw.read_response()
        assert (response.status, response.get("connection")) == (408, "close")
        assert closed(raw)


@pytest.mark.slow
def test_header_time_byte_by_byte(start: Start) -> None:
    """Each byte comes in time; the whole does not."""
    server = start(limits(request_header=0.4))
    began = time.monotonic()
    with Raw(server, timeout=0.05) as raw:
        data = b"GET /hello?id=slow HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 4000
        for number in range(len(data)):
            raw.send(data[number : number + 1])
            try:
                raw.fill()
            except TimeoutError:
                continue
            break
        assert time.monotonic() - began > 0.3
        raw.socket.settimeout(serving.MUST_SECONDS)
        assert raw.read_response().status == 408
        assert closed(raw)
    assert not records_of(server, "slow")


@pytest.mark.slow
def test_header_time_of_a_later_request(start: Start) -> None:
    """Also behind a good request, in the same packet or in another."""
    server = start(limits(request_header=0.4))
    for together in (True, False):
        with Raw(server) as raw:
            parts = [GET % b"first", b"GET /hello"]
            for part in [b"".join(parts)] if together else parts:
                raw.send(part)
            assert raw.read_response().body == b"hello first"
            assert raw.read_response().status == 408
            assert closed(raw)


@pytest.mark.slow
def test_silence_is_not_answered(start: Start) -> None:
    """Nobody asked anything: a new connection and an idle one are closed without a word."""
    server = start(SHORT)
    with Raw(server) as raw:
        assert closed(raw)
    with Raw(server) as raw:
        assert raw.ask("/hello").status == 200
        assert closed(raw)


@pytest.mark.slow
def test_keep_alive_time_begins_anew(start: Start) -> None:
    server = start(limits(keep_alive=0.4))

    def served_for_longer() -> bool:
        with Raw(server) as raw:
            began = time.monotonic()
            while (asked := time.monotonic()) - began < 0.8:
                try:
                    assert raw.ask("/hello").status == 200
                    time.sleep(0.05)
                except (ClosedError, ConnectionError):
                    # The time may have run out, but only if this test was late.
                    assert time.monotonic() - asked > 0.3
                    return False
            return closed(raw)

    serving.wait_until(served_for_longer)


@pytest.mark.slow
def test_a_slow_application_is_nobodys_time_out(start: Start) -> None:
    server = start(limits(request_header=0.4, body_idle=0.4, write=0.4))
    with Raw(server) as raw:
        assert raw.ask("/later?id=x&seconds=0.9").body == b"later x"
        assert raw.ask("/hello").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_body_idle(start: Start, framing: str) -> None:
    server = start(limits(body_idle=0.4))
    with Raw(server) as raw:
        raw.request("/echo", framing, method="POST")
        raw.send(b"5\r\nhel")
        response = raw.read_response()
        assert (response.status, response.get("connection")) == (408, "close")
        assert closed(raw)


@pytest.mark.slow
def test_body_that_drips_is_not_idle(start: Start) -> None:
    server = start(SHORT)
    with Raw(server) as raw:
        raw.request("/echo", "Content-Length: 12", method="POST")
        for _ in range(12):
            time.sleep(0.06)
            raw.send(b"x")
        assert raw.read_response().body == b"x" * 12


@pytest.mark.slow
def test_body_idle_after_the_answer_began(start: Start) -> None:
    """Too late for a status: the client must not take what it has for an answer."""
    server = start(limits(body_idle=0.4))
    with Raw(server) as raw:
        raw.request("/some?x", "Content-Length: 10", method="POST")
        raw.send(b"a")
        assert raw.read_response().body == b"enough"
        assert closed(raw)


@pytest.mark.slow
def test_write_stall(start: Start) -> None:
    """A client that does not read: the application waits in send(), then it hears the end."""
    server = start(limits(write=0.4))
    with Raw(server) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.request("/big?bytes=100000000&id=stall")
        server.wait_for_record("OSError in /big: ClientDisconnected")
        # What got out is what the kernel's buffers hold and one step above the mark.
        assert len(server.records("sent-stall")) < 400
        with pytest.raises((ClosedError, ConnectionResetError)):
            raw.read_response()


@pytest.mark.slow
def test_slow_reader_is_no_stall(start: Start) -> None:
    """It takes little at a time, less than the kernel wants to see before it asks for more."""
    server = start(SHORT)
    size = 12_000_000
    with Raw(server) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)
        raw.request(f"/big?bytes={size}")
        assert raw.read_head().get("content-length") == str(size)
        left = size - len(raw.buffer)
        for _ in range(15):
            time.sleep(0.1)
            left -= len(raw.socket.recv(65536))
        while left > 0:
            data = raw.socket.recv(1 << 20)
            assert data
            left -= len(data)


# ---- size ----

SMALL = ["--limit-request-line", "200", "--limit-request-head", "1000"]
SMALL += ["--limit-request-fields", "10", "--max-request-body-size", "1000"]


def line_of(length: int) -> bytes:
    target = b"/hello?id=" + b"a" * (length - len("GET /hello?id= HTTP/1.1"))
    line = b"GET " + target + b" HTTP/1.1"
    assert len(line) == length
    return line


@pytest.mark.parametrize(("length", "status"), [(199, 200), (200, 200), (201, 414), (2000, 414)])
def test_request_line(start: Start, length: int, status: int) -> None:
    server = start(SMALL)
    with Raw(server) as raw:
        raw.send(line_of(length) + b"\r\nHost: a\r\n\r\n")
        assert raw.read_response().status == status
        assert (status == 200) or closed(raw)


def test_request_line_without_an_end(start: Start) -> None:
    server = start(SMALL)
    with Raw(server) as raw:
        raw.send(b"GET /" + b"a" * 300)
        assert raw.read_response().status == 414
        assert closed(raw)


@pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 431), (5000, 431)])
@pytest.mark.parametrize("pieces", [1, 7])
def test_head(start: Start, size: int, status: int, pieces: int) -> None:
    server = start(SMALL)
    data = b"GET /hello HTTP/1.1\r\nHost: a\r\nX-A: "
    data += b"a" * (size - len(data) - 4) + b"\r\n\r\n"
    with Raw(server) as raw:
        step = -(-len(data) // pieces)
        for at in range(0, len(data), step):
            try:
                raw.send(data[at : at + step])
            except OSError:
                break
        assert raw.read_response().status == status
        assert (status == 200) or closed(raw)


@pytest.mark.parametrize(("count", "status"), [(9, 200), (10, 200), (11, 431), (60, 431)])
def test_fields(start: Start, count: int, status: int) -> None:
    server = start(SMALL)
    with Raw(server) as raw:
        raw.request("/hello", *(f"A{n}: b" for n in range(count - 1)))
        assert raw.read_response().status == status
        assert (status == 200) or closed(raw)


@pytest.mark.parametrize(("size", "status"), [(0, 200), (999, 200), (1000, 200), (1001, 413)])
def test_body_that_says_its_length(start: Start, size: int, status: int) -> None:
    server = start(SMALL)
    mark = f"declared{size}"
    with Raw(server) as raw:
        raw.request(f"/count?id={mark}", f"Content-Length: {size}", method="POST")
        raw.send(b"x" * size)
        response = raw.read_response()
        assert response.status == status
        if status == 200:
            assert json.loads(response.body)["total"] == size
        else:
            assert closed(raw)
    # Refused by its head: the application never hears of it.
    assert len(records_of(server, mark)) == (status == 200)


def test_body_too_large_is_refused_before_it_is_sent(start: Start) -> None:
    server = start(SMALL)
    with Raw(server) as raw:
        raw.request("/count", "Content-Length: 5000", "Expect: 100-continue", method="POST")
        assert raw.read_response().status == 413
        assert closed(raw)


def test_answer_to_a_body_too_large_survives_the_upload(start: Start) -> None:
    server = start(SMALL)
    with Raw(server) as raw:
        raw.request("/count", "Content-Length: 5000000", method="POST")
        failed: list[OSError] = []

        def upload() -> None:
            try:
                raw.send(b"x" * 5_000_000)
            except OSError as error:
                failed.append(error)

        sender = threading.Thread(target=upload)
        sender.start()
        assert raw.read_response().status == 413
        sender.join(serving.MUST_SECONDS)
        assert not sender.is_alive()


@pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 413), (9000, 413)])
@pytest.mark.parametrize("piece", [1, 100, 10000])
def test_body_in_chunks(start: Start, size: int, status: int, piece: int) -> None:
    server = start(SMALL)
    data = b"x" * size
    with Raw(server) as raw:
        raw.request("/count", "Transfer-Encoding: chunked", method="POST")
        parts = [data[at : at + piece] for at in range(0, size, piece)]
        raw.send(b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n")
        response = raw.read_response()
        assert response.status == status
        if status == 200:
            assert json.loads(response.body)["total"] == size
        else:
            assert response.get("connection") == "close"
            assert closed(raw)


def test_large_limits_are_reached(start: Start) -> None:
    """Beyond what one block holds: the head grows its own."""
    args = ["--limit-request-line", "100000", "--limit-request-head", "300000"]
    server = start([*args, "--limit-request-fields", "200"])
    with Raw(server) as raw:
        long = "a" * 99_000
        headers = [f"X-{n}: {'b' * 1000}" for n in range(180)]
        response = raw.ask(f"/scope?{long}", *headers)
        assert response.status == 200
        shown = json.loads(response.body)
        assert shown["query"] == long
        assert len(shown["headers"]) == 181
        raw.request(f"/echo?{long}", *headers, method="POST", body=b"y" * 200_000)
        assert raw.read_response().body == b"y" * 200_000


# ---- count ----


def test_concurrency(start: Start) -> None:
    """One more than may be with the application: 503; afterwards all is as before."""
    server = start(["--limit-concurrency", "3"])
    holders = [Raw(server) for _ in range(3)]
    try:
        for number, raw in enumerate(holders):
            raw.request(f"/listens?id=full-{number}")
        for number in range(3):
            server.wait_for_record(f"http.request 0 full-{number}")
        for _ in range(3):
            with Raw(server) as raw:
                raw.request("/hello?id=too-many")
                response = raw.read_response()
                assert (response.status, response.get("connection")) == (503, "close")
                assert closed(raw)
        assert not records_of(server, "too-many")
    finally:
        for raw in holders:
            raw.socket.close()
    for number in range(3):
        server.wait_for_record(f"http.disconnect 0 full-{number}")
    with Raw(server) as raw:
        assert raw.ask("/hello").status == 200


def test_concurrency_counts_requests_and_not_connections(start: Start) -> None:
    server = start(["--limit-concurrency", "2"])
    several = [Raw(server) for _ in range(10)]
    try:
        for _ in range(2):
            for raw in several:
                assert raw.ask("/hello").status == 200
    finally:
        for raw in several:
            raw.socket.close()
