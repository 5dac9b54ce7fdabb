"""Peers that are slow, half gone, gone, or too many."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest
import serving
from rawhttp import ClosedError, Raw

from ppserver.observe import board


@pytest.fixture(scope="module")
def server(serve: Callable[..., serving.Server], loop: str) -> serving.Server:
    return serve("wire:app", loop=loop, args=["--no-access-log"])


def alive(server: serving.Server) -> bool:
    with Raw(server) as raw:
        return raw.ask("/hello").status == 200


@contextlib.contextmanager
def load(server: serving.Server, threads: int = 3) -> Iterator[Callable[[], int]]:
    """Honest clients beside a fault: every answer must be right. Gives the count so far."""
    stop = threading.Event()
    done = [0] * threads
    wrong: list[str] = []

    def run(number: int) -> None:
        try:
            while not stop.is_set():
                with Raw(server) as raw:
                    for turn in range(50):
                        mark = f"{number}-{turn}"
                        if raw.ask(f"/hello?id={mark}").body != f"hello {mark}".encode():
                            wrong.append(mark)
                        done[number] += 1
        except Exception as error:
            wrong.append(repr(error))

    workers = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield lambda: sum(done)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert wrong == []


# ---- slow and half gone ----


def test_slowloris(server: serving.Server) -> None:
    """Two hundred peers drip a byte at a time; everybody else is served as if they were not."""
    drips = [Raw(server) for _ in range(200)]
    text = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    try:
        with load(server) as count:
            for at in range(len(text)):
                for raw in drips:
                    raw.send(text[at : at + 1])
            before = count()
            serving.wait_until(lambda: count() > before + 300, what="progress of the others")
        for raw in drips:
            assert raw.read_response().body == b"abc"
    finally:
        for raw in drips:
            raw.socket.close()


@pytest.mark.slow
def test_slowloris_is_shown_the_door(serve: Callable[..., serving.Server], loop: str) -> None:
    server = serve("wire:app", loop=loop, args=["--timeout-request-header", "0.5"])
    drips = []
    try:
        with load(server):
            for _ in range(200):
                drips.append(Raw(server))
                drips[-1].send(b"GET /")
            for raw in drips:
                assert raw.read_response().status == 408
    finally:
        for raw in drips:
            raw.socket.close()


def test_half_open(server: serving.Server) -> None:
    """Peers that shut their side and stay, in every state, cost nobody else anything."""
    texts = [
        b"",
        b"GET /hel",
        b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        b"GET /big?bytes=3000000 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    peers = [Raw(server) for _ in range(20) for _ in texts]
    try:
        for number, raw in enumerate(peers):
            raw.send(texts[number % len(texts)])
            raw.socket.shutdown(socket.SHUT_WR)
        assert alive(server)
        for number, raw in enumerate(peers):
            answered = texts[number % len(texts)][:9] in (b"GET /hell", b"GET /big?")
            if answered:
                assert raw.read_response().status == 200
            else:
                with pytest.raises((ClosedError, ConnectionResetError)):
                    raw.read_response()
    finally:
        for raw in peers:
            raw.socket.close()


# ---- gone ----


@pytest.mark.parametrize("how", ["reset", "close"])
def test_gone_within_the_body(server: serving.Server, how: str) -> None:
    mark = f"body-{how}"
    raw = Raw(server)
    raw.request(f"/listens?id={mark}", "Content-Length: 100000", method="POST")
    raw.send(b"x" * 10)
    server.wait_for_record(f"http.request 10 {mark}")
    raw.reset() if how == "reset" else raw.socket.close()
    server.wait_for_record(f"http.disconnect 0 {mark}")
    server.wait_for_record(f"sent nowhere {mark}")
    assert alive(server)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_gone_while_the_application_waits(server: serving.Server, how: str) -> None:
    mark = f"wait-{how}"
    raw = Raw(server)
    raw.request(f"/listens?id={mark}")
    server.wait_for_record(f"http.request 0 {mark}")
    raw.reset() if how == "reset" else raw.socket.close()
    server.wait_for_record(f"http.disconnect 0 {mark}")
    assert alive(server)


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("path", ["/endless", "/endless?slowly=1"])
def test_gone_within_the_answer(server: serving.Server, how: str, path: str) -> None:
    """Also while send() waits for room, where nobody would wake it but the disconnect."""
    before = server.records().count("OSError in /endless")
    raw = Raw(server)
    raw.request(path)
    raw.read_exactly(1000)
    raw.reset() if how == "reset" else raw.socket.close()
    server.wait_for_record("OSError in /endless", before + 1)
    assert alive(server)


def test_gone_while_nobody_reads(server: serving.Server) -> None:
    """The application is stuck in send(); the peer never read a byte."""
    before = server.records().count("OSError in /endless")
    peers = [Raw(server) for _ in range(20)]
    for raw in peers:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.request("/endless")
    for raw in peers:
        raw.read_exactly(1)
    for number, raw in enumerate(peers):
        raw.reset() if number % 2 else raw.socket.close()
    server.wait_for_record("OSError in /endless", before + len(peers))
    assert alive(server)


def test_gone_in_a_pipeline(server: serving.Server) -> None:
    """What was asked for behind a gone answer need not be done, and does no harm if it is."""
    for _ in range(50):
        raw = Raw(server)
        raw.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
        raw.reset()
    assert alive(server)


def test_gone_before_accept(server: serving.Server) -> None:
    for _ in range(200):
        raw = Raw(server)
        raw.reset()
    assert alive(server)


def test_many_resets_at_any_time(server: serving.Server) -> None:
    paths = ["/hello", "/later", "/echo", "/big?bytes=1000000", "/endless", "/raises?when=middle"]
    with load(server, 2):
        for number in range(300):
            raw = Raw(server)
            text = f"POST {paths[number % 6]} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
            raw.send(text.encode()[: 20 + number % 60])
            if number % 3 == 0:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    raw.socket.settimeout(0.005)
                    raw.socket.recv(100)
            raw.reset()
    assert alive(server)


# ---- too many ----

IDLE = textwrap.dedent(
    """
    import resource, socket, sys
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
    peers = []
    request = b"GET /hello HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
    for number in range(count):
        peer = socket.create_connection((host, port), 60)
        peers.append(peer)
        if number % 2:
            peer.sendall(request)
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
    print("open", flush=True)
    sys.stdin.readline()
    for peer in peers:
        peer.sendall(request)
        assert peer.recv(4096).startswith(b"HTTP/1.1 200")
    print("served", flush=True)
    """
)


def raise_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def limit_of(soft: int | None) -> Iterator[None]:
    """What a child started meanwhile inherits."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (old[1] if soft is None else soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


@pytest.mark.slow
def test_five_thousand_idle_beside_load(
    tmp_path: object, loop: str, serve: Callable[..., serving.Server]
) -> None:
    count = 5000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < count + 200:
        pytest.skip(f"the hard limit of descriptors is below {count + 200}")
    with limit_of(None):
        server = serve(
            "wire:app", loop=loop, args=["--no-access-log", "--timeout-request-header", "60"]
        )
        idle = subprocess.Popen(
            [sys.executable, "-c", IDLE, server.host, str(server.port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert idle.stdin is not None
    assert idle.stdout is not None
    with idle:
        try:
            assert idle.stdout.readline() == "open\n"
            with load(server) as done:
                serving.wait_until(lambda: done() > 2000, what="2,000 requests beside them")
            idle.stdin.write("\n")
            idle.stdin.flush()
            assert idle.stdout.readline() == "served\n"
        finally:
            idle.kill()


def test_out_of_descriptors(serve: Callable[..., serving.Server], loop: str) -> None:
    """More peers than there are descriptors: they wait or are sent away, and later all is well."""
    with limit_of(64):
        # An application that opens nothing itself.
        server = serve("hostile:app", loop=loop, args=["--no-access-log", "--backlog", "512"])
    served: list[Raw] = []
    for _ in range(150):
        raw = Raw(server, timeout=0.5)
        raw.request("/hello")
        served.append(raw)
    answers = 0
    for raw in served:
        with contextlib.suppress(ClosedError, ConnectionError, TimeoutError):
            answers += raw.read_response().status == 200
    # Those that have a place keep it.
    assert 20 < answers < 64
    again = 0
    for raw in served[:20]:
        again += raw.ask("/hello").status == 200
    assert again == 20
    for raw in served:
        raw.socket.close()
    for _ in range(30):
        assert alive(server)
    # And it did not spin meanwhile: the processor time is that of a few hundred requests.
    assert cpu_seconds(server.pid) < 10


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_out_of_descriptors_does_not_spin(serve: Callable[..., serving.Server], loop: str) -> None:
    with limit_of(64):
        server = serve("hostile:app", loop=loop, args=["--backlog", "512"])
    peers = [Raw(server) for _ in range(100)]
    before = cpu_seconds(server.pid)
    threading.Event().wait(1.0)
    used = cpu_seconds(server.pid) - before
    for raw in peers:
        raw.socket.close()
    assert used < 0.5
    assert alive(server)


def test_a_context_out_of_descriptors_is_passed_over(
    serve: Callable[..., serving.Server],
) -> None:
    """They go where there is room, and the log tells of what was lost."""
    server = serve("hostile:app", loop="asyncio", contexts=2, place="processes")
    pids = [entry["pid"] for entry in board.contexts(board.of_process(server.pid))]
    used = max(int(name) for name in os.listdir(f"/proc/{pids[1]}/fd")) + 1
    resource.prlimit(pids[1], resource.RLIMIT_NOFILE, (used + 3, used + 3))
    served, lost = [], 0
    for _ in range(60):
        raw = Raw(server, timeout=60)
        try:
            assert raw.ask("/hello").status == 200
            served.append(raw)
        except (ClosedError, ConnectionError):  # An end, no silence.
            raw.socket.close()
            lost += 1
    for raw in served:
        raw.socket.close()
    assert lost <= 5
    if lost:
        server.wait_for_log("descriptors", 60)


# ---- memory ----


def test_nobody_reads_and_memory_is_bounded(server: serving.Server) -> None:
    """Back-pressure: forty peers that read nothing of 40 GB."""
    assert alive(server)
    before = serving.memory_bytes(server.pid)
    peers = [Raw(server) for _ in range(40)]
    for raw in peers:
        raw.request("/big?bytes=1000000000&piece=262144")
    for raw in peers:
        raw.read_exactly(1)
    assert alive(server)
    grown = serving.memory_bytes(server.pid) - before
    for raw in peers:
        raw.reset()
    # The mark is 64 KB; one message of 256 KB may go above it.
    assert grown < 40 * 1_000_000
    assert alive(server)


def test_body_nobody_reads_is_not_taken(server: serving.Server) -> None:
    """The other direction: what the application does not take stays with its sender."""
    assert alive(server)
    before = serving.memory_bytes(server.pid)
    peers = [Raw(server) for _ in range(20)]
    try:
        for number, raw in enumerate(peers):
            raw.request(f"/hangs?id=unread-{number}", "Content-Length: 1000000000", method="POST")
            raw.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                while True:
                    raw.send(b"x" * 65536)
        assert serving.memory_bytes(server.pid) - before < 20 * 1_000_000
    finally:
        for number, raw in enumerate(peers):
            raw.reset()
            with Raw(server) as other:
                other.ask(f"/opens?gate=unread-{number}")
    assert alive(server)


def test_tiny_chunks_are_linear(server: serving.Server) -> None:
    """A megabyte in chunks of one byte is six megabytes of work, not more."""
    with Raw(server) as raw:
        raw.request("/count", "Transfer-Encoding: chunked", method="POST")
        before = cpu_seconds(server.pid)
        for _ in range(64):
            raw.send(b"1\r\nx\r\n" * 16384)
        raw.send(b"0\r\n\r\n")
        shown = json.loads(raw.read_response().body)
    assert shown["total"] == 64 * 16384
    assert cpu_seconds(server.pid) - before < 10
