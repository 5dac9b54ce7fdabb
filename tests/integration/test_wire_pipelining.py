"""Requests that come before the answers to those before them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
import serving
from rawhttp import ClosedError, Raw

pytestmark = pytest.mark.skipif(
    serving.PEER != "ppserver", reason="what is refused, and how, is each server's own"
)

KINDS = ("hello", "later", "echo", "big", "status", "head", "count", "sleep")


@pytest.fixture(scope="module")
def server(serve: Callable[..., serving.Server], loop: str) -> serving.Server:
    return serve("wire:app", loop=loop, args=["--no-access-log"])


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: a", *headers, "", ""]
    return "\r\n".join(lines).encode()


def post(target: str, body: bytes, *, chunked: bool = False) -> bytes:
    if chunked:
        framed = b"".join(b"%x\r\n%s\r\n" % (1, bytes([byte])) for byte in body) + b"0\r\n\r\n"
        return get(target, "Transfer-Encoding: chunked", method="POST") + framed
    return get(target, f"Content-Length: {len(body)}", method="POST") + body


def one(kind: str, number: int, source: random.Random) -> tuple[bytes, bytes | None]:
    """A request of a kind and the body of its answer; None for an answer to HEAD."""
    mark = f"{kind}{number}"
    if kind == "later":
        return get(f"/later?id={mark}"), f"later {mark}".encode()
    if kind == "sleep":
        seconds = source.choice((0, 0.001, 0.005))
        return get(f"/later?id={mark}&seconds={seconds}"), f"later {mark}".encode()
    if kind == "echo":
        body = mark.encode() * source.choice((1, 10, 200))
        return post(f"/echo?id={mark}", body, chunked=source.random() < 0.5), body
    if kind == "count":
        return post("/count", b""), b'{"total": 0, "pieces": 1, "most": 0}'
    if kind == "big":
        size = source.choice((0, 1, 70_000, 200_000))
        return get(f"/big?bytes={size}"), b"x" * size
    if kind == "status":
        return get("/status?status=204"), b""
    if kind == "head":
        return get(f"/later?id={mark}", method="HEAD"), None
    return get(f"/hello?id={mark}"), f"hello {mark}".encode()


@pytest.mark.parametrize("seed", range(12))
def test_strictly_ordered(server: serving.Server, seed: int) -> None:
    """Those that finish at once and those that suspend, with bodies and without."""
    source = random.Random(seed)
    requests = [one(source.choice(KINDS), number, source) for number in range(40)]
    data = b"".join(request for request, _ in requests)
    with Raw(server) as raw:
        # In one piece, or cut anywhere.
        cuts = sorted(source.sample(range(len(data)), 5)) if seed % 2 else []
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        sender = threading.Thread(target=lambda: [raw.send(piece) for piece in pieces])
        sender.start()
        for _, expected in requests:
            answer = raw.read_response(to_head=expected is None)
            assert answer.status in (200, 204)
            assert answer.body == (expected or b"")
        sender.join()
        assert raw.ask("/hello?id=after").body == b"hello after"


def test_one_at_a_time(server: serving.Server) -> None:
    """The second request does not start before the first is answered."""
    with Raw(server) as raw, Raw(server) as other:
        raw.send(get("/hangs?id=gate-1") + get("/hello?id=second-in-line"))
        server.wait_for_record("waiting gate-1")
        assert other.ask("/hello?id=beside").status == 200
        assert "GET /hello second-in-line" not in server.records()
        other.ask("/opens?gate=gate-1")
        assert raw.read_response().body == b"opened"
        assert raw.read_response().body == b"hello second-in-line"


FAILURES = {
    "bad request": (b"GET /hello HTTP/1.1\r\n\r\n", 400),
    "exception": (get("/raises?when=suspended"), 500),
    "exception at once": (get("/raises"), 500),
    "close": (get("/later?id=x", "Connection: close"), 200),
    "1.0": (b"GET /hello HTTP/1.0\r\n\r\n", 200),
    "version": (b"GET /hello HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "unread body": (get("/hello", "Content-Length: 1000000", method="POST"), 200),
    "connect": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
}


@pytest.mark.parametrize("name", FAILURES)
def test_nothing_behind_the_last_is_processed(server: serving.Server, name: str) -> None:
    data, status = FAILURES[name]
    mark = name.replace(" ", "-")
    with Raw(server) as raw:
        raw.send(
            get("/hello?id=one")
            + get("/later?id=two")
            + data
            + get(f"/hello?id=behind-{mark}")
            + post(f"/echo?id=behind-{mark}", b"x")
        )
        assert raw.read_response().body == b"hello one"
        assert raw.read_response().body == b"later two"
        last = raw.read_response()
        assert (last.status, last.get("connection")) == (status, "close")
        assert raw.read_to_end() == b""
    assert not any(f"behind-{mark}" in line for line in server.records())


def test_failure_in_the_middle_of_an_answer_ends_it(server: serving.Server) -> None:
    with Raw(server) as raw:
        raw.send(get("/hello?id=one") + get("/raises?when=middle") + get("/hello?id=behind-middle"))
        assert raw.read_response().body == b"hello one"
        with pytest.raises((ClosedError, ConnectionResetError)):
            raw.read_response()
    assert not any("behind-middle" in line for line in server.records())


def test_answers_of_two_connections_never_mix(server: serving.Server) -> None:
    def talk(name: str) -> None:
        with Raw(server) as raw:
            for round_ in range(10):
                raw.send(b"".join(get(f"/later?id={name}-{round_}-{n}") for n in range(20)))
                for n in range(20):
                    if raw.read_response().body != f"later {name}-{round_}-{n}".encode():
                        wrong.append(name)
                        return

    wrong: list[str] = []
    threads = [threading.Thread(target=talk, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_five_thousand_at_once(server: serving.Server) -> None:
    """Far more than may be read ahead; a client that writes all of it before it reads."""
    count = 5000
    with Raw(server) as raw:
        sender = threading.Thread(
            target=lambda: raw.send(b"".join(get(f"/hello?id={n}") for n in range(count)))
        )
        sender.start()
        for number in range(count):
            assert raw.read_response().body == f"hello {number}".encode()
        sender.join()


def test_a_client_that_only_sends_is_not_read_for_ever(server: serving.Server) -> None:
    """Answers that nobody reads stop the requests: the memory for them is bounded."""
    with Raw(server, timeout=1.0) as raw:
        data = get("/big?bytes=60000&id=flood") * 50
        try:
            while True:
                raw.send(data)
        except TimeoutError:
            pass
        answered = sum("flood" in line for line in server.records())
        assert answered < 1000
    with Raw(server) as raw:
        assert raw.ask("/hello").status == 200


def test_depth_of_one(serve: Callable[..., serving.Server], loop: str) -> None:
    """The least depth that can be set changes no answer."""
    server = serve("wire:app", loop=loop, args=["--limit-pipeline", "1"])
    with Raw(server) as raw:
        raw.send(b"".join(get(f"/hello?id={n}") for n in range(50)))
        for number in range(50):
            assert raw.read_response().body == f"hello {number}".encode()
