"""Listening sockets: addresses, conflicts, one socket per context, files of Unix sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import socket
import stat
from collections.abc import Iterator

import pytest

from ppserver.config import Config
from ppserver.config.addresses import SOCKETS_MAX, Address, parse_address
from ppserver.context.listeners import Listeners
from ppserver.errors import BindError, ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("example.org:0", Address("example.org", 0)),
        (":80", Address("", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("unix:/run/x", Address(path="/run/x")),
        ("unix:x", Address(path="x")),
        ("fd://3", Address(fd=3)),
    ],
)
def test_parse(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "80", "host", "host:", "host:x", "host:65536", "::1:80", "unix:", "fd://x", "a:-1"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="bind"):
        parse_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "unix:/run/x", "fd://3"])
def test_address_text_goes_round(text: str) -> None:
    assert str(parse_address(text)) == text


def connections(listeners: Listeners, slots: int, count: int) -> list[int]:
    """Open connections and tell how many each slot's socket got."""
    clients = [socket.create_connection(("127.0.0.1", listeners.port)) for _ in range(count)]
    found = []
    for slot in range(slots):
        accepted = 0
        while True:
            try:
                listeners.take(slot)[0].socket.accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
        found.append(accepted)
    for client in clients:
        client.close()
    return found


def test_port_zero_and_url() -> None:
    with Listeners(Config(port=0)) as listeners:
        assert listeners.urls == [f"http://127.0.0.1:{listeners.port}"]
        assert listeners.port > 0
        assert connections(listeners, 1, 3) == [3]


def test_each_slot_has_its_socket_and_all_get_connections() -> None:
    with Listeners(Config(port=0)) as listeners:
        for slot in range(2):
            listeners.take(slot)
        found = connections(listeners, 2, 64)
        assert sum(found) == 64
        assert min(found) > 5


def test_taking_again_gives_the_same_socket() -> None:
    with Listeners(Config(port=0)) as listeners:
        assert listeners.take(1)[0].socket is listeners.take(1)[0].socket
        assert listeners.take(1)[0].kind == "alone"


def test_released_slot_gets_no_connections() -> None:
    with Listeners(Config(port=0)) as listeners:
        listeners.take(0)
        listeners.take(1)
        listeners.release(1)
        assert connections(listeners, 1, 16) == [16]


def test_quiescing_keeps_those_who_wait_and_lets_nobody_begin() -> None:
    with Listeners(Config(port=0)) as listeners:
        listeners.take(1)
        waiting = [socket.create_connection(("127.0.0.1", listeners.port)) for _ in range(8)]
        listeners.quiesce()
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", listeners.port), 0.1)
        accepted = []
        for slot in range(2):
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append(listeners.take(slot)[0].socket.accept()[0])
        assert len(accepted) == 8
        for client in waiting:
            client.sendall(b"still heard")
        for server in accepted:
            server.settimeout(60)
            assert server.recv(100) == b"still heard"
        for sock in (*waiting, *accepted):
            sock.close()
    with Listeners(Config(port=listeners.port)):
        pass


def test_quiescing_one_slot_leaves_the_others() -> None:
    with Listeners(Config(port=0)) as listeners:
        listeners.take(1)
        listeners.quiesce(1)
        listeners.release(1)
        assert connections(listeners, 1, 8) == [8]


@pytest.mark.parametrize("taken", [1, 2])
def test_address_in_use_is_found_although_ports_are_shared(taken: int) -> None:
    with Listeners(Config(port=0)) as first:
        for slot in range(taken):
            first.take(slot)
        with pytest.raises(BindError, match="address already in use") as caught:
            Listeners(Config(port=first.port))
        assert "(ss -ltnp shows who it is)" in caught.value.hint
        assert caught.value.exit_code == 3


def test_address_is_free_again_after_close() -> None:
    with Listeners(Config(port=0)) as first:
        first.take(1)
        connections(first, 2, 4)
    with Listeners(Config(port=first.port)) as second:
        assert second.port == first.port


@pytest.mark.parametrize(
    ("host", "message"),
    [("192.0.2.1", "cannot assign"), ("no.such.host.invalid", "unknown host")],
)
def test_wrong_host(host: str, message: str) -> None:
    with pytest.raises(BindError, match=message):
        Listeners(Config(host=host, port=0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_no_permission() -> None:
    with pytest.raises(BindError, match="permission denied"):
        Listeners(Config(port=1))


def test_several_addresses(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    config = Config(bind=("127.0.0.1:0", "127.0.0.2:0", f"unix:{path}"))
    with Listeners(config) as listeners:
        assert len(listeners.urls) == 3
        assert listeners.urls[2] == f"unix:{path}"
        listening = listeners.take(1)
        assert [entry.kind for entry in listening] == ["alone", "alone", "shared"]
    assert not path.exists()


def test_ipv6() -> None:
    try:
        with Listeners(Config(host="::1", port=0)) as listeners:
            listeners.take(1)
            assert listeners.urls == [f"http://[::1]:{listeners.port}"]
            socket.create_connection(("::1", listeners.port)).close()
    except BindError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_localhost_may_be_several_addresses() -> None:
    with Listeners(Config(host="localhost", port=0)) as listeners:
        assert listeners.urls == [f"http://localhost:{listeners.port}"]
        socket.create_connection(("localhost", listeners.port)).close()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "socket"


def test_unix_socket(path: pathlib.Path) -> None:
    with Listeners(Config(uds=str(path))) as listeners:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert listeners.take(0, alone=True)[0].kind == "alone"
        assert listeners.take(0)[0].kind == "shared"
        assert listeners.take(0)[0].socket is listeners.take(1)[0].socket
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_stale_unix_socket_is_replaced(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with Listeners(Config(uds=str(path))) as listeners:
        assert listeners.urls == [f"unix:{path}"]


def test_live_unix_socket_is_left_alone(path: pathlib.Path) -> None:
    with Listeners(Config(uds=str(path))):
        with pytest.raises(BindError, match="address already in use") as caught:
            Listeners(Config(uds=str(path)))
        assert f"(process {os.getpid()})" in caught.value.hint
        assert path.exists()


def test_a_unix_socket_whose_queue_is_full_is_left_alone(path: pathlib.Path) -> None:
    """Nobody is told then who listens."""
    with socket.socket(socket.AF_UNIX) as owner, contextlib.ExitStack() as stack:
        owner.bind(str(path))
        owner.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(BindError, match="address already in use") as caught:
            Listeners(Config(uds=str(path)))
        assert "(ss -lxp shows who it is)" in caught.value.hint


def test_a_file_that_is_no_socket_is_left_alone(path: pathlib.Path) -> None:
    path.write_text("precious")
    with pytest.raises(BindError, match="no socket"):
        Listeners(Config(uds=str(path)))
    assert path.read_text() == "precious"


def test_unix_socket_of_a_successor_is_left_alone(path: pathlib.Path) -> None:
    listeners = Listeners(Config(uds=str(path)))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listeners.close()
        assert path.exists()


def test_missing_directory(path: pathlib.Path) -> None:
    with pytest.raises(BindError, match="no such file"):
        Listeners(Config(uds=str(path / "x")))


@pytest.fixture
def inherited() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_descriptor(inherited: socket.socket) -> None:
    with Listeners(Config(fd=inherited.fileno())) as listeners:
        port = inherited.getsockname()[1]
        assert listeners.urls == [f"http://127.0.0.1:{port}"]
        assert listeners.take(1)[0].kind == "shared"
        socket.create_connection(("127.0.0.1", port)).close()
    assert inherited.fileno() >= 0


def test_wrong_descriptor() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(BindError, match="no stream socket"):
            Listeners(Config(fd=datagram.fileno()))
    with pytest.raises(BindError, match="fd://1000000"):
        Listeners(Config(fd=1000000))


def test_an_error_closes_what_was_open(path: pathlib.Path) -> None:
    with pytest.raises(BindError):
        Listeners(Config(bind=(f"unix:{path}", "192.0.2.1:0")))
    assert not path.exists()


def test_neighbours_come_along() -> None:
    with Listeners(Config(port=0)) as listeners:
        listening = listeners.take(1, neighbours=[2, 0])
        assert [entry.kind for entry in listening] == ["own", "neighbour", "neighbour"]
        assert listening[1].socket is listeners.take(2)[0].socket
        assert listening[2].socket is listeners.take(0)[0].socket
        many = listeners.take(0, neighbours=range(1, 200))
        assert len(many) == SOCKETS_MAX


def test_many_addresses_are_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=f"more than {SOCKETS_MAX} sockets"):
        Listeners(Config(bind=("127.0.0.1:0",) * (SOCKETS_MAX + 1)))


def is_dual(sock: socket.socket) -> bool:
    return not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_second_address_leaves_dual_stack_on() -> None:
    with Listeners(Config(bind=("[::]:0", "127.0.0.1:0"))) as listeners:
        six = listeners.take(0)[0].socket
        assert is_dual(six)
        socket.create_connection(("127.0.0.1", six.getsockname()[1])).close()


@pytest.mark.parametrize("order", [1, -1])
def test_both_families_of_a_port_can_be_given(order: int) -> None:
    with listening_on_both(order) as listeners:
        sockets = [one.socket for one in listeners.take(0)]
        assert {sock.family for sock in sockets} == {socket.AF_INET, socket.AF_INET6}


def listening_on_both(order: int) -> Listeners:
    """A port may be somebody else's by the time that it is listened on: then another is tried."""
    for left in reversed(range(20)):
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::", 0))
            port = sock.getsockname()[1]
        try:
            return Listeners(Config(bind=(f"[::]:{port}", f"0.0.0.0:{port}")[::order]))
        except BindError:
            if not left:
                raise
    raise AssertionError


def test_every_address_works_without_ipv6_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    make = socket.socket

    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *args: object, **named: object) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            make.__init__(self, family, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with Listeners(Config(bind=(":0",))) as listeners:
        assert [one.socket.family for one in listeners.take(0)] == [socket.AF_INET]
    with pytest.raises(BindError, match="cannot listen on"):
        Listeners(Config(bind=("[::1]:0",)))
