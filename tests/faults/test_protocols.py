"""Protocols of the parallel API that misbehave, and peers that come and go: nobody else suffers."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

ORDER = ("main", "unmade", "bad handler", "bad start", "http", "http unmade")
Connect = Callable[[str], contextlib.AbstractContextManager[socket.socket]]


@pytest.fixture(scope="module", params=[(1, "auto"), (2, "threads")], ids=["1", "2-threads"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[serving.Server]:
    contexts, place = request.param
    server = serving.launch(
        "hostile_protocols.py",
        tmp_path_factory.mktemp("hostile"),
        contexts=contexts,
        place=place,
        args=["--no-access-log"],
    )
    with serving.stopping(server):
        server.wait_started()
        server.wait_for_log("(?s)" + r"running on \w+://.*" * len(ORDER))
        server.allow(serving.EXPECTED)
        server.allow("SystemExit: 7")
        server.allow("KeyboardInterrupt")
        server.allow("a callback must return")
        yield server


@pytest.fixture
def ports(server: serving.Server) -> dict[str, int]:
    found = re.findall(r"running on \w+://127\.0\.0\.1:(\d+) ", server.log)
    return dict(zip(ORDER, map(int, found), strict=True))


@pytest.fixture
def connect(ports: dict[str, int]) -> Connect:
    return lambda name: contextlib.closing(
        socket.create_connection(("127.0.0.1", ports[name]), serving.MUST_SECONDS)
    )


def ask(peer: socket.socket, text: bytes) -> bytes:
    peer.sendall(text)
    return peer.recv(65536)


def still_serves(connect: Connect) -> None:
    with connect("main") as peer:
        assert ask(peer, b"hello") == b"hello"


@pytest.mark.parametrize("what", [b"raise", b"exit", b"interrupt"])
def test_what_a_callback_raises_ends_its_connection(connect: Connect, what: bytes) -> None:
    with connect("main") as peer, connect("main") as other:
        assert ask(other, b"before") == b"before"
        assert ask(peer, what) == b""
        assert ask(other, b"after") == b"after"


@pytest.mark.parametrize("name", ["unmade", "bad handler", "bad start"])
def test_a_protocol_that_fails_from_the_start(connect: Connect, name: str) -> None:
    with connect(name) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(b"hello")
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(100) == b""
    still_serves(connect)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"close thrice", b"once"),
        (b"thread", b"sendfile"),
        (b"new", b"no"),
        (b"attributes", b"fine, ServerTransport"),
    ],
)
def test_what_a_transport_does_not_let_happen(
    connect: Connect, question: bytes, answer: bytes
) -> None:
    with connect("main") as peer:
        assert ask(peer, question) == answer


@pytest.mark.parametrize("how", [b"close kept", b"close kept by threads"])
def test_closing_other_connections(connect: Connect, how: bytes) -> None:
    """Of all contexts of the process, and those that are gone already."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect("main")) for _ in range(8)]
        for peer in peers:
            assert ask(peer, b"keep") == b"kept"
        with connect("main") as gone:
            assert ask(gone, b"keep") == b"kept"
        with connect("main") as closer:
            assert ask(closer, how).startswith(b"closed")
        for peer in peers:
            assert peer.recv(100) == b""


def test_an_answer_that_nobody_reads(connect: Connect) -> None:
    with connect("main") as peer:
        peer.sendall(b"big")
        assert peer.recv(1) == b"x"
        still_serves(connect)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    still_serves(connect)


@pytest.mark.parametrize("path", ["/exit", "/close"])
def test_a_method_that_raises(ports: dict[str, int], path: str) -> None:
    for _ in range(2):
        client = http.client.HTTPConnection(
            "127.0.0.1", ports["http"], timeout=serving.MUST_SECONDS
        )
        with contextlib.closing(client):
            client.request("GET", path)
            assert client.getresponse().status == 500


def test_a_protocol_of_requests_that_cannot_be_made(ports: dict[str, int]) -> None:
    client = http.client.HTTPConnection(
        "127.0.0.1", ports["http unmade"], timeout=serving.MUST_SECONDS
    )
    with contextlib.closing(client):
        client.request("GET", "/fine")
        assert client.getresponse().status == 500


def test_nothing_is_left_of_connections(
    server: serving.Server, connect: Connect, ports: dict[str, int]
) -> None:
    """Protocol objects, and with them transports, go with their connections, however these end."""
    reset = struct.pack("ii", 1, 0)
    for number in range(300):
        with connect(("main", "bad start", "bad handler")[number % 3]) as peer:
            if number % 2:
                peer.sendall(b"some" if number % 5 else b"big")
            if number % 4 == 3:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        client = http.client.HTTPConnection(
            "127.0.0.1", ports["http"], timeout=serving.MUST_SECONDS
        )
        with contextlib.closing(client):
            client.request("GET", "/fine")
            if number % 2:
                assert client.getresponse().read() == b"fine"

    def left() -> int:
        with connect("main") as peer:
            return int(ask(peer, b"alive").split()[1])

    serving.wait_until(lambda: left() <= 2)  # its own, and one that is just ending
    assert "never" not in server.records()
