"""The channel between supervisor and host, and what the supervisor believes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from ppserver.supervision import messages
from ppserver.supervision.channel import Channel, Received


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_what_the_kernel_has_no_room_for_is_sent_later(pair: tuple[Channel, Channel]) -> None:
    """More orders than a socket holds (278): none is lost, and their order stays."""
    ours, theirs = pair
    ours.unblock()
    for number in range(1000):
        assert ours.send("start", number=number, sockets=[theirs.socket])
    assert ours.pending
    found = []
    while len(found) < 1000:
        received = theirs.receive()
        assert received is not None
        found.append(received.message["number"])
        assert len(received.fds) == 1
        os.close(received.fds[0])
        assert ours.flush()
    assert found == list(range(1000))
    assert not ours.pending


def test_an_order_whose_sockets_are_gone_is_dropped(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.unblock()
    with socket.socket() as listening:
        while not ours.pending:
            ours.send("start", sockets=[listening])
    ours.send("leave")
    while (received := theirs.receive()) is not None and received.message["kind"] == "start":
        os.close(received.fds[0])
        ours.flush()
    assert received is not None
    assert received.message["kind"] == "leave"


def test_threads_share_an_end(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    threads = [
        threading.Thread(target=lambda: [theirs.send("ready") for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        received = ours.receive()
        assert received is not None
        assert received.message == {"kind": "ready"}
    for thread in threads:
        thread.join()


def test_the_kernel_says_who_sent_a_message(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.unblock()
    assert ours.receive() is None
    pid = os.fork()
    if pid == 0:
        theirs.send("x")
        os._exit(0)
    os.waitpid(pid, 0)
    received = ours.receive()
    assert received is not None
    assert received.sender == pid
    theirs.socket.send(b"")
    assert ours.receive() is None
    assert not ours.ended
    theirs.close()
    assert ours.receive() is None
    assert ours.ended
    assert not ours.send("x")


def test_descriptors_are_not_inheritable_and_can_be_refused(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    theirs.send("x", sockets=[theirs.socket])
    received = ours.receive()
    assert received is not None
    assert not os.get_inheritable(received.fds[0])
    os.close(received.fds[0])
    theirs.send("x", sockets=[theirs.socket, ours.socket])
    refused = ours.receive(0)
    assert refused is not None
    assert refused.fds == []
    assert refused.sender == os.getpid()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 60000,
        b'{"kind": "x"}',
        b'{"kind": ["ready"]}',
        b'{"kind": "ready"}',
        b'{"kind": "ready", "key": "1"}',
        b'{"kind": "ready", "key": -1}',
        b'{"kind": "ready", "key": true}',
        b'{"kind": "ready", "key": 1e3}',
        b'{"kind": "ended", "key": 1, "code": 4294967296}',
        b'{"kind": "started", "slot": 0, "seat": {}, "key": 1}',
        b'{"kind": "imported", "key": 1, "interface": "ftp", "loop": ""}',
        b'{"kind": "loaded", "place": "mars", "interface": "", "loop": "", "why": ""}',
        b'{"kind": "loaded", "place": "threads", "interface": 1, "loop": "", "why": ""}',
        b'{"kind": "loaded", "place": "threads", "interface": "", "loop": "", "why": "",'
        b' "addresses": [[["a"]]]}',
    ],
)
def test_nonsense(data: bytes) -> None:
    with pytest.raises(messages.NonsenseError):
        messages.read(Received(data, [], 1))


@pytest.mark.parametrize(
    "message",
    [
        messages.Loaded("threads", "wsgi", "asyncio", "why", [[("a:1", "http")], []]),
        messages.Opened("asgi"),
        messages.Started(1, None, 77),
        messages.Unstarted(1, 2, "why"),
        messages.Ended(77, -9),
        messages.Said("ready", 77),
        messages.Said("stop", 77),
        messages.Imported(77, "asgi", "uvloop"),
    ],
)
def test_what_the_supervisor_is_told_arrives(
    pair: tuple[Channel, Channel], message: messages.ToSupervisor
) -> None:
    ours, theirs = pair
    assert messages.send(theirs, message)
    received = ours.receive()
    assert received is not None
    assert messages.read(received) == message


@pytest.mark.parametrize(
    "message",
    [
        messages.Start(1, None, ["own", "shared"], [0, 1]),
        messages.Tell(77, "quit"),
        messages.Gone(77),
        messages.Reopen(),
        messages.Leave(),
    ],
)
def test_what_a_host_is_told_arrives(
    pair: tuple[Channel, Channel], message: messages.ToHost
) -> None:
    ours, theirs = pair
    assert messages.send(ours, message)
    received = theirs.receive()
    assert received is not None
    assert messages.read_by_host(received) == message


def test_what_a_guest_is_told_and_tells_arrives(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    place = messages.Place(board=3, index=1, inbox=4, doors=[5, 6])
    for there in (place, None):
        birth = messages.Birth(
            slot=1,
            seat=1,
            key=77,
            settings={"bind": ["a:1"]},
            place=there,
            turn=7,
            listening=[(8, "own", 0)],
            channel=9,
            supervisor=10,
            errands=-1,
        )
        assert messages.Birth.of(json.loads(json.dumps(dataclasses.asdict(birth)))) == birth
    messages.send(theirs, messages.Finished(3, False))
    received = ours.receive()
    assert received is not None
    assert messages.read_finished(received) == messages.Finished(3, False)
