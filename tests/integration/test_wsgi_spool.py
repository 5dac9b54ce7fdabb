"""WSGI: large request bodies are received before the application is called, into a file."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serving

live = serving.load_app("wsgi_live")
Context, request, plain = live.Context, live.request, live.plain

Start = Callable[..., Any]
Environ = dict[str, Any]

LARGE = 3_000_000
PART = 262_144  # what a body takes at a time
DATA = b"".join(b"line %d\r\n" % i for i in range(300_000))[:LARGE]
ROOM = 100 << 20


def chunked(data: bytes, size: int) -> bytes:
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in [*pieces, b""])


def raw(kind: str, data: bytes = DATA) -> tuple[bytes, bytes]:
    if kind == "chunked":
        return request("/", "POST", headers=("Transfer-Encoding: chunked",)), chunked(data, 70_001)
    headers = [f"Content-Length: {len(data)}"]
    if kind == "expect":
        headers.append("Expect: 100-continue")
    return request("/", "POST", headers=tuple(headers)), data


def held() -> int:
    """Bytes on the disk of this process's files that have no name (any more)."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = f"/proc/self/fd/{name}"
            if os.readlink(path).startswith("/var/tmp/"):
                found += os.stat(path).st_blocks * 512
    return found


def by_pieces(stream: Any) -> bytes:
    return b"".join(iter(lambda: stream.read(65_537), b""))


READS: dict[str, Callable[[Any], bytes]] = {
    "whole": lambda stream: stream.read(),  # type: ignore[no-any-return]
    "pieces": by_pieces,
    "lines": b"".join,
    "mixed": lambda s: s.readline() + s.read(10) + b"".join(s.readlines(5000)) + s.read(LARGE * 2),
    "limited": lambda s: b"".join(iter(lambda: s.readline(701), b"")),
}


@pytest.mark.parametrize("kind", ["length", "chunked", "expect"])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_body_that_is_read_in_every_way(kind: str, threads: int) -> None:
    reads = iter(READS.values())
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        seen.append(environ)
        body = next(reads)(environ["wsgi.input"])
        assert environ["wsgi.input"].read() == b""
        start_response("200 OK", [])
        return [body]

    head, body = raw(kind)
    with Context(app, threads=threads, spool_size=ROOM) as context, context.connect() as client:
        for _ in READS:
            client.send(head)
            if kind == "expect":
                assert client.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
                assert client.reader.readline() == b"\r\n"
            client.send(body)
            assert client.answer("POST").body == DATA
        assert held() >= LARGE * len(READS)
        for environ in seen:
            assert environ["CONTENT_LENGTH"] == str(LARGE)
            assert environ["wsgi.input_terminated"] is True
            assert "HTTP_TRANSFER_ENCODING" not in environ
        del environ
        seen.clear()
        # Without a GIL, what another thread lets go of goes when its own thread runs again.
        if not serving.FREE_THREADED:
            serving.wait_until(lambda: held() == 0, what="room to be given back")
    serving.wait_until(lambda: held() == 0, what="room to be given back at the end")


@pytest.mark.parametrize("how", ["close", "reset", "shut"])
def test_trickled_and_aborted_bodies_hold_no_thread(how: str) -> None:
    """With one thread; and the application never hears of what is not whole."""
    called: list[str] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        called.append(environ["REQUEST_METHOD"])
        start_response("200 OK", [])
        return [b"%d" % len(environ["wsgi.input"].read())]

    with Context(app, threads=1, spool_size=ROOM) as context:
        trickling = []
        for kind in ("length", "chunked", "expect") * 2:
            head, body = raw(kind)
            client = context.connect()
            client.send(head + body[:-7])
            trickling.append((client, body))
        serving.wait_until(lambda: held() >= 6 * (LARGE - 100_000), what="files")
        for _ in range(20):
            assert context.get().status == 200
        assert set(called) == {"GET"}
        for client, _ in trickling[1:]:
            if how == "reset":
                client.reset()
            elif how == "close":
                client.close()
            else:
                client.sock.shutdown(socket.SHUT_WR)
                assert client.at_end()
        serving.wait_until(lambda: held() <= LARGE + PART, what="room to be given back")
        client, body = trickling[0]
        client.send(body[-7:])
        assert client.answer("POST").body == b"%d" % LARGE
        assert called[-1] == "POST"
    assert held() == 0


def echo(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def post(context: Any, kind: str, data: bytes = DATA) -> Any:
    """Sends while it waits for the answer."""
    with context.connect() as client:
        head, body = raw(kind, data)
        sender = threading.Thread(target=client.send, args=(head + body,))
        sender.start()
        answer = client.answer("POST")
        sender.join()
        return answer


@pytest.mark.parametrize("kind", ["length", "chunked"])
@pytest.mark.parametrize("room", [1, 1_500_000, LARGE, LARGE + PART])
def test_what_has_no_room_is_read_as_it_comes(kind: str, room: int) -> None:
    """And room that was given back is used again."""
    with Context(echo, threads=2, spool_size=room) as context:
        for _ in range(3):
            assert post(context, kind).body == DATA
    assert held() == 0


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_directory_that_takes_no_files(tmp_path: Path, kind: str) -> None:
    with Context(echo, spool_size=ROOM, spool_dir=str(tmp_path / "none")) as context:
        assert post(context, kind).body == DATA


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files of this process end at 1.2 MB: EFBIG instead of ENOSPC (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_full_disk(full_disk: None, kind: str) -> None:
    with Context(echo, spool_size=ROOM) as context:
        for _ in range(2):
            assert post(context, kind).body == DATA
    assert held() == 0


def test_an_input_that_outlives_its_request_and_its_context() -> None:
    kept: list[Any] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        kept.append(environ["wsgi.input"])
        start_response("200 OK", [])
        return []

    with Context(app, spool_size=ROOM) as context:
        assert post(context, "length").status == 200
    assert kept[0].read(100) == DATA[:100]
    assert kept[0].read() == DATA[100:]
    kept.clear()
    assert held() == 0


@pytest.mark.skipif(
    serving.FREE_THREADED, reason="a child forked off several threads may hang without a GIL"
)
def test_a_forked_child_has_no_part_in_it() -> None:
    """It neither gives back what its parent reads, nor reads what others have written since."""

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            code = 1
            try:
                environ["wsgi.input"].read()
            except OSError:
                code = 7
            environ.clear()
            gc.collect()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        return echo(environ, start_response)

    with Context(app, spool_size=ROOM) as context:
        assert post(context, "length").body == DATA


def test_small_bodies_stay_in_memory() -> None:
    seen: list[int] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        seen.append(held())
        return echo(environ, start_response)

    with Context(app, spool_size=ROOM) as context:
        for kind in ("length", "chunked"):
            assert post(context, kind, DATA[: 1 << 20]).body == DATA[: 1 << 20]
    assert seen == [0, 0]


def test_draining_waits_for_a_body_that_comes() -> None:
    head, body = raw("length")
    with Context(echo, spool_size=ROOM) as context, context.connect() as client:
        client.send(head + body[:-1])
        serving.wait_until(lambda: held() > LARGE - 100_000, what="the file")
        context.core.drain()
        client.send(body[-1:])
        assert client.answer("POST").body == DATA
    assert held() == 0


def test_stopping_gives_files_back() -> None:
    head, body = raw("length")
    with Context(echo, spool_size=ROOM) as context, context.connect() as client:
        client.send(head + body[:-1])
        serving.wait_until(lambda: held() > LARGE - 100_000, what="the file")
        context.core.stop()
        assert context.join()
    assert held() == 0


@pytest.mark.parametrize(("end", "status"), [(b"zz\r\n", 400), (b"", 408)])
def test_a_body_that_goes_wrong_in_its_file(end: bytes, status: int) -> None:
    with Context(plain(b"never"), spool_size=ROOM, timeout_body_idle=0.5) as context:
        with context.connect() as client:
            head, body = raw("chunked")
            client.send(head + body[: -len(b"0\r\n\r\n")] + end)
            assert client.answer("POST").status == status
            assert client.at_end()
        serving.wait_until(lambda: held() == 0, what="room to be given back")


def test_a_body_takes_no_file_before_it_is_large() -> None:
    with Context(echo, threads=1, spool_size=ROOM) as context, context.connect() as client:
        head, body = raw("length")
        client.send(head + body[: 1 << 20])
        assert context.get().status == 200
        received = lambda: context.core.stats()["bytes_in"] > 1 << 20  # noqa: E731
        serving.wait_until(received, what="the body to be received")
        assert held() == 0
        client.send(body[1 << 20 :])
        assert client.answer("POST").body == DATA


def test_a_body_beyond_the_limit_is_refused() -> None:
    with Context(echo, spool_size=ROOM, max_request_body_size=2_000_000) as context:
        for kind in ("length", "chunked", "expect"):
            with context.connect() as client:
                head, body = raw(kind)
                client.send(head)
                with contextlib.suppress(OSError):  # It may be refused before it is sent.
                    if kind != "expect":
                        client.send(body)
                assert client.answer("POST").status == 413
        assert context.core.stats()["requests"] <= 3
    assert held() == 0
