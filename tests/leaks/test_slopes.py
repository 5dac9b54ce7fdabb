"""What many requests and many connections leave behind: nothing, and less than a kilobyte each."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
import serving
from rawhttp import ClosedError, Raw

pytestmark = pytest.mark.slow

# Sanitizers keep what was freed, and change the size of everything.
SANITIZED = bool(os.environ.get("TEST_SANITIZER"))


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def running(directory: pathlib.Path, loop: str, *args: str) -> Iterator[serving.Server]:
    args = ("--no-access-log", *args)
    with serving.running("leaky:app", directory, loop=loop, args=args) as server:
        yield server


def figures(server: serving.Server) -> dict[str, int]:
    with Raw(server) as raw:
        found: dict[str, int] = json.loads(raw.ask("/figures").body)
    return found


def crowd(server: serving.Server) -> None:
    """Lets the event loop keep as much as it ever will."""
    with Raw(server) as raw:
        assert raw.ask("/crowd").body == b"gone"


# ---- requests ----

BLOCK = (
    b"GET /hello HTTP/1.1\r\nHost: a\r\nUser-Agent: leaks\r\nX-A: b\r\n\r\n" * 60
    + b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" * 15
    + b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
    * 5
    + b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" * 30
    + b"GET /timer HTTP/1.1\r\nHost: a\r\n\r\n" * 2
    + b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" * 10
    + b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 8
    + b"HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n" * 10
)
BLOCK_COUNT = BLOCK.count(b" HTTP/1.1\r\n")


def round_of_all_kinds(server: serving.Server, number: int) -> int:
    """Some hundred requests; how many."""
    count = 0
    with Raw(server) as raw:
        for turn in range(5):
            mark = b"end-%d-%d" % (number, turn)
            raw.send(
                BLOCK
                + b"POST /echo HTTP/1.1\r\nHost: a\r\nX-Mark-%d: %d\r\n" % (number % 7, number)
                + b"Content-Length: %d\r\n\r\n%s" % (len(mark), mark)
            )
            raw.read_until(b"\r\n\r\n" + mark)
            count += BLOCK_COUNT + 1
    for path in ("/raises", "/raises-later"):
        with Raw(server) as raw:
            raw.request(path)
            raw.read_to_end()
            count += 1
    for data in (b"nonsense\r\n\r\n", b"GET /hel", b"POST /echo HTTP/1.1\r\nHost: a\r\n"):
        with Raw(server) as raw:
            raw.send(data)
    # Gone while the application waits, sends, reads.
    for path, headers in (
        ("/waits", ()),
        ("/endless", ()),
        ("/echo", ("Content-Length: 100",)),
        ("/timer", ()),
    ):
        raw = Raw(server)
        raw.request(path, *headers)
        if path == "/endless":
            with contextlib.suppress(ClosedError):
                raw.read_exactly(1000)
        raw.reset()
        count += 1
    return count


def requests(server: serving.Server, total: int) -> None:
    done = number = 0
    while done < total:
        done += round_of_all_kinds(server, number)
        number += 1


@pytest.mark.timeout(600)
def test_requests_leave_nothing(tmp_path: pathlib.Path, loop: str, more: bool) -> None:
    total = 200_000 if more else 12_000
    with running(tmp_path, loop) as server:
        requests(server, total // 4)
        crowd(server)
        figures(server)
        before = figures(server)
        requests(server, total)
        crowd(server)
        serving.wait_until(
            lambda: figures(server)["tasks"] <= before["tasks"], what="no tasks left"
        )
        after = figures(server)
    grown = {name: after[name] - before[name] for name in after}
    # What is constant per process differs by a few; what is per request would be thousands.
    assert grown["objects"] < 100, grown
    assert grown["blocks"] < 500, grown
    # The pools keep blocks up to the most that were in use at a time, which depends on the timing.
    assert grown["native_blocks"] <= 100, grown
    assert grown["native_bytes"] <= 100 * 17_000, grown
    if not SANITIZED:
        assert grown["anonymous_bytes"] < 2_000_000, grown


# ---- connections ----

IDLE = textwrap.dedent(
    """
    import resource, socket, sys
    host, port, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most + 100, most + 100))
    request = b"GET /hello HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
    peers = []
    for line in sys.stdin:
        while len(peers) < int(line):
            source = ("127.0.0.%d" % (2 + len(peers) % 50), 0)
            peer = socket.create_connection((host, port), 30, source)
            peer.sendall(request)
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
            peers.append(peer)
        print(len(peers), flush=True)
    """
)


@pytest.mark.timeout(300)
@pytest.mark.skipif(SANITIZED, reason="a sanitizer's allocator has other sizes")
def test_an_idle_connection_is_less_than_a_kilobyte(
    tmp_path: pathlib.Path, loop: str, more: bool
) -> None:
    first, last = (1000, 15000) if more else (500, 4000)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < last + 200:
        pytest.skip(f"the hard limit of descriptors is below {last + 200}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        with running(tmp_path, loop) as server:
            idle = subprocess.Popen(
                [sys.executable, "-c", IDLE, server.host, str(server.port), str(last)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert idle.stdin is not None
            assert idle.stdout is not None
            found = []
            with idle:
                for count in (first, last):
                    idle.stdin.write(f"{count}\n")
                    idle.stdin.flush()
                    assert idle.stdout.readline() == f"{count}\n"
                    found.append(figures(server))
                idle.kill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    slope = {name: (found[1][name] - found[0][name]) / (last - first) for name in found[0]}
    print("per idle connection:", {name: round(value, 2) for name, value in slope.items()})
    assert slope["native_bytes"] <= 1024
    assert slope["anonymous_bytes"] <= 1024
    assert slope["objects"] < 0.05
    assert slope["blocks"] < 3.1  # The peer's (host, port): a tuple, a string, a number.
