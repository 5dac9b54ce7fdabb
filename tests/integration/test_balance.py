"""Even load: where connections go, and how the server follows a load that shifts."""

from __future__ import annotations

import collections
import contextlib
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import serving

from ppserver.machine import gil
from ppserver.observe import board

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tsan,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="the contexts of ppserver"),
]

MANY = 2000


@pytest.fixture(autouse=True, scope="module")
def _descriptors() -> Iterator[None]:
    """Room for the connections, here and in the servers, which inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * MANY
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Peer:
    """A client's connection that is kept, with as little work on this side as possible."""

    def __init__(self, server: serving.Server) -> None:
        self.socket = socket.create_connection((server.host, server.port), serving.MUST_SECONDS)
        self.rest = b""

    def send(self, path: str = "/", times: int = 1) -> None:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * times)

    def receive(self) -> dict[str, Any]:
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        found: dict[str, Any] = json.loads(body)
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the server closed the connection"
        self.rest += data

    def ask(self, path: str = "/") -> int:
        """The thread that answered, which stands for its context."""
        self.send(path)
        return int(self.receive()["thread"])


@contextlib.contextmanager
def peers(server: serving.Server, count: int) -> Iterator[list[Peer]]:
    opened: list[Peer] = []
    try:
        for _ in range(count):
            opened.append(Peer(server))
        yield opened
    finally:
        for one in opened:
            one.socket.close()


@contextlib.contextmanager
def asking(opened: list[Peer], path: str) -> Iterator[list[int]]:
    """While the block runs, each peer asks without a pause; the list holds who answered last."""
    stop, seen = threading.Event(), [0] * len(opened)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            while not stop.is_set():
                seen[number] = opened[number].ask(path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(opened))]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(serving.MUST_SECONDS)
    assert not failures, failures


def total(server: serving.Server, name: str) -> int:
    return sum(entry[name] for entry in board.contexts(board.of_process(server.pid)))


def stuck(server: serving.Server) -> bool:
    """Whether a context has not come back from the application for a tenth of a second."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    entries = board.contexts(board.of_process(server.pid))
    return any(
        entry["busy_since_us"] and entry["busy_since_us"] < now - 100_000 for entry in entries
    )


PLACES = ["processes", "threads"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("contexts", [2, 8])
def test_connections_are_spread(
    serve: Callable[..., serving.Server], place: str, contexts: int
) -> None:
    server = serve("places:make", place=place, contexts=contexts, args=["--factory"])
    # A context that gets no processor for a while is rightly left out for that while.
    for last in (False, False, False, False, True):
        with peers(server, 64) as opened:
            counts = collections.Counter(one.ask() for one in opened)
        serving.wait_until(lambda: total(server, "connections") == 0)
        if len(counts) == contexts and max(counts.values()) <= 64 // contexts + 4:
            break
        assert not last, counts


@pytest.mark.parametrize("place", PLACES)
def test_the_kernel_may_spread_them(serve: Callable[..., serving.Server], place: str) -> None:
    args = ["--factory", "--balance", "kernel"]
    server = serve("places:make", place=place, contexts=2, args=args)
    with peers(server, 64) as opened:
        counts = collections.Counter(one.ask() for one in opened)
        assert len(counts) == 2
        assert sum(counts.values()) == 64


@pytest.mark.parametrize("place", PLACES)
def test_nobody_is_sent_to_a_context_that_is_stuck(
    serve: Callable[..., serving.Server], place: str
) -> None:
    """One context is inside the application for a second: new connections go to the other one."""
    server = serve("places:make", place=place, contexts=2, args=["--factory"])
    with peers(server, 2) as opened:
        first, second = (one.ask() for one in opened)
        assert first != second
        opened[0].send("/block")
        server.wait_for_record("blocking")
        serving.wait_until(lambda: stuck(server), what="a heartbeat that is missed")
        for _ in range(20):
            with peers(server, 1) as more:
                assert more[0].ask() == second
        (server.directory / "go").touch()
        assert opened[0].receive()["thread"] == first
        (server.directory / "go").unlink()


@pytest.mark.parametrize("place", PLACES)
def test_it_follows_a_load_that_shifts(serve: Callable[..., serving.Server], place: str) -> None:
    """Idle, then very many connections, then work on those of one context, then a burst on one of
    them, then slow clients: with the settings as they are."""
    server = serve("places:make", place=place, contexts=2, args=["--factory", "--no-access-log"])

    # Very many connections: half of them on each side.
    with peers(server, MANY) as opened:
        serving.wait_until(lambda: total(server, "connections") == MANY)
        serving.wait_until(lambda: is_even(server, opened[::100]), what="an even spread")
        owners = [one.ask() for one in opened]
        counts = collections.Counter(owners)
        assert len(counts) == 2
        # Threads that share a GIL are busy together: it would not help to move anything.
        if place == "processes" or not gil.enabled():
            hot = [one for one, owner in zip(opened, owners, strict=True) if owner == owners[0]]
            work_moves_over(server, hot[:24], owners[0])
            neighbours_of_a_burst_leave(hot[0], hot[1:9])

    # Slow clients: a receive right after accept brings nothing, and is left out.
    serving.wait_until(lambda: total(server, "connections") == 0)
    tried, accepted = total(server, "tried"), total(server, "accepted")
    with peers(server, 400) as opened:
        serving.wait_until(lambda: total(server, "connections") == 400)
        assert total(server, "accepted") - accepted == 400
        assert total(server, "tried") - tried < 150
        assert {one.ask() for one in opened} == set(counts)


def is_even(server: serving.Server, some: list[Peer]) -> bool:
    """Whether no context has a tenth more than its share. Asks a little: loops that sleep do not
    look at each other."""
    for one in some:
        one.ask()
    counts = [entry["connections"] for entry in board.contexts(board.of_process(server.pid))]
    return len(counts) == 2 and max(counts) <= 1.1 * MANY / 2


def work_moves_over(server: serving.Server, busy: list[Peer], hot: int) -> None:
    """All the work comes from connections of one context: some of them change over, and stay."""
    one_at_a_time = average_batch(server, 0, 0)
    before = batches(server)
    with asking(busy, "/spin") as seen:
        serving.wait_until(lambda: sum(owner not in (0, hot) for owner in seen) >= 6, what="relief")
        # Who is equally busy leaves the other alone.
        serving.wait_until(lambda: total(server, "requests") > 5 * MANY // 4)
        assert 4 <= sum(owner == hot for owner in seen) <= 20, seen
    assert average_batch(server, *before) > 1.5 * one_at_a_time


def neighbours_of_a_burst_leave(burst: Peer, beside: list[Peer]) -> None:
    """A burst on one connection cannot be split: those beside it go elsewhere."""
    stop = threading.Event()
    at: list[int] = []

    def pipelining() -> None:
        while not stop.is_set():
            burst.send("/spin", 32)
            at.extend(burst.receive()["thread"] for _ in range(32))

    bursting = threading.Thread(target=pipelining)
    bursting.start()
    try:
        serving.wait_until(lambda: at)
        with asking(beside, "/") as seen:
            serving.wait_until(
                lambda: sum(owner not in (0, at[-1]) for owner in seen) >= 6, 30, "relief"
            )
    finally:
        stop.set()
        bursting.join(serving.MUST_SECONDS)


def batches(server: serving.Server) -> tuple[int, int]:
    return total(server, "batch_count"), total(server, "batch_sum")


def average_batch(server: serving.Server, count: int, events: int) -> float:
    """Events per batch since there were so many."""
    now_count, now_events = batches(server)
    return (now_events - events) / (now_count - count)


def test_the_board_can_be_read_from_outside(serve: Callable[..., serving.Server]) -> None:
    server = serve("places:make", place="processes", contexts=2, args=["--factory"])
    with peers(server, 10) as opened:
        for one in opened:
            one.ask()
        command = [sys.executable, "-m", "ppserver.board"]
        shown = subprocess.run(
            [*command, str(server.pid)],
            capture_output=True,
            text=True,
            timeout=serving.MUST_SECONDS,
            check=True,
        ).stdout.splitlines()
    assert shown[0].split()[:3] == ["slot", "pid", "connections"]
    assert [line.split()[2] for line in shown[1:]] == ["5", "5"]
    other = subprocess.run(
        [*command, "1000000000"],
        capture_output=True,
        text=True,
        timeout=serving.MUST_SECONDS,
        check=False,
    )
    assert other.returncode == 1
    assert "cannot look at process 1000000000" in other.stderr
