"""Listening sockets: open the addresses, hand each context its own.

A TCP address gets one socket per context (``SO_REUSEPORT``: the kernel spreads connections); a few
other contexts watch it, too, and accept while its own is busy. All are kept open by whoever owns
:class:`Listeners`, so that a context can die and be replaced without a connection being reset.
The first socket listens *before* it gets the option: until then nobody can share the address, so
"address in use" is found without a race; Linux lets later sockets of the same user join a
listening one that has the option. Unix sockets and inherited descriptors are one socket that all
contexts share.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

from ppserver.config import Config
from ppserver.config.addresses import SOCKETS_MAX, Address, addresses, too_many
from ppserver.errors import BindError

_SO_ATTACH_FILTER = 26
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group
_NEIGHBOURS = 3  # Contexts that help one out which does not come to accept.


@dataclasses.dataclass(frozen=True, slots=True)
class Listening:
    """One listening socket as a context gets it, and who else accepts from it.

    ``alone``: nobody; ``shared``: all contexts alike; ``own``: others while this one is busy;
    ``neighbour``: it is another context's, to be helped while that is busy.
    """

    socket: socket.socket
    kind: str
    tag: int = 0  # which protocol of the parallel API it is for


def neighbours(config: Config, slot: int, slots: int) -> list[int]:
    """The slots whose sockets the context in ``slot`` watches, too, of ``slots``: nearest first."""
    if config.balance != "load":
        return []
    count = min(_NEIGHBOURS, slots - 1)
    return [(slot + distance) % slots for distance in range(1, count + 1)]


class Listeners:
    """All listening sockets of a server; a context manager that closes them.

    Making one opens the addresses and raises BindError if one cannot be had.
    """

    def __init__(self, config: Config) -> None:
        self.urls: list[str] = []
        self.port = 0
        self._config = config
        self._own: list[list[socket.socket]] = [[]]
        self._shared: list[socket.socket] = []
        self._own_tags: list[int] = []  # as the sockets of a slot
        self._shared_tags: list[int] = []
        self._files: list[tuple[str, int]] = []
        self._v4_ports: frozenset[int] = frozenset()
        if config.interface != "parallel":  # Its addresses are known once it is loaded.
            self.open([addresses(config)])

    def __enter__(self) -> Listeners:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self, addresses: Sequence[Sequence[Address]]) -> None:
        """Open the addresses of each protocol; a position is the tag.

        Raises BindError if one cannot be had; then nothing stays open.
        """
        self._v4_ports = _v4_ports([address for one in addresses for address in one])
        try:
            for tag, one in enumerate(addresses):
                for address in one:
                    self._open(address)
                    if len(self._own[0]) + len(self._shared) > SOCKETS_MAX:
                        raise too_many()
                    self._own_tags += [tag] * (len(self._own[0]) - len(self._own_tags))
                    self._shared_tags += [tag] * (len(self._shared) - len(self._shared_tags))
        except BaseException:
            self.close()
            raise

    def take(
        self, slot: int, *, alone: bool = False, neighbours: Sequence[int] = ()
    ) -> list[Listening]:
        """The sockets of context ``slot``, opened if they are not yet; they stay ours.

        ``alone`` says that there is no other context. The sockets of ``neighbours`` (slots, nearest
        first) come along as far as one message can carry them. Raises BindError if a socket cannot
        join.
        """
        own = self._of(slot)
        kind = "own" if neighbours else "alone"
        found = [Listening(*entry) for entry in self._tagged(own, kind)]
        found += [
            Listening(sock, "alone" if alone else "shared", tag)
            for sock, tag in zip(self._shared, self._shared_tags, strict=True)
        ]
        for other in neighbours:
            if other != slot and len(found) + len(own) <= SOCKETS_MAX:
                found += [Listening(*entry) for entry in self._tagged(self._of(other), "neighbour")]
        return found

    def _tagged(
        self, sockets: Sequence[socket.socket], kind: str
    ) -> Iterator[tuple[socket.socket, str, int]]:
        return ((sock, kind, tag) for sock, tag in zip(sockets, self._own_tags, strict=True))

    def _of(self, slot: int) -> list[socket.socket]:
        """The sockets of a slot alone, opened if they are not yet."""
        while len(self._own) <= slot:
            self._own.append([])
        if not self._own[slot]:
            self._own[slot] = [self._join(first) for first in self._own[0]]
        return self._own[slot]

    def quiesce(self, slot: int | None = None) -> None:
        """Let no new connection begin; those in the kernel's queues can still be accepted.

        What arrives between the last ``accept`` and the end of a socket would be reset: so the
        end begins with this. A client whose SYN is dropped asks again a second later, and is
        refused then, or served by another context. Without ``slot``, that is for all sockets.
        """
        for sock in (
            [sock for own in self._own for sock in own]
            if slot is None
            else [sock for own in self._own[slot : slot + 1] for sock in own]
        ):
            with contextlib.suppress(OSError):
                _drop_syn(sock)
        if slot is None:
            self._unlink()

    def release(self, slot: int) -> None:
        """Close the sockets that only context ``slot`` used, in every process that has them."""
        if 0 < slot < len(self._own):
            for sock in self._own[slot]:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            self._own[slot] = []

    def give_files(self, uid: int | None, gid: int | None) -> None:
        """Make the files of Unix sockets the property of the user the server becomes."""
        if uid is not None or gid is not None:
            for path, _ in self._files:
                with contextlib.suppress(PermissionError):
                    os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)

    def close(self) -> None:
        """Close every socket here and remove the files of Unix sockets that are still ours."""
        self.disown()
        self._unlink()

    def _unlink(self) -> None:
        for path, inode in self._files:
            with contextlib.suppress(OSError):
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        self._files.clear()

    def disown(self) -> None:
        """Close every socket here; contexts that hold copies go on, files stay."""
        for sock in [*self._shared, *(sock for slot in self._own for sock in slot)]:
            sock.close()
        self._own, self._shared = [[]], []
        self._own_tags, self._shared_tags = [], []

    def _open(self, address: Address) -> None:
        if address.path is not None:
            self._shared.append(self._open_path(address))
            self.urls.append(str(address))
        elif address.fd is not None:
            sock = _adopt(address, self._config.backlog)
            self._shared.append(sock)
            self.urls.append(_url(sock, address))
        else:
            self._open_tcp(address)

    def _open_tcp(self, address: Address) -> None:
        found = _resolve(address)
        families = {family for family, _ in found}
        port, failed = address.port, None
        opened = []
        # [::] takes IPv4 connections, too, unless that port of IPv4 has a socket of its own here.
        v6_only = len(families) > 1 or address.port in self._v4_ports
        for family, sockaddr in found:
            sock = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                _prepare(sock, v6_only=v6_only)
                sock.bind((sockaddr[0], port or sockaddr[1], *sockaddr[2:]))
                sock.listen(self._config.backlog)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            except OSError as error:
                if sock is not None:
                    sock.close()
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(found) > 1:
                    failed = error
                    continue
                raise _bind_error(address, error) from None
            port = port or sock.getsockname()[1]
            opened.append(sock)
            self._own[0].append(sock)
        if not opened:
            assert failed is not None
            raise _bind_error(address, failed)
        self.port = self.port or port
        self.urls.append(_url(opened[0], address))

    def _join(self, first: socket.socket) -> socket.socket:
        """One more socket listening on the address of ``first``."""
        sock = socket.socket(first.family, socket.SOCK_STREAM)
        try:
            v6_only = first.family == socket.AF_INET6 and bool(
                first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            )
            _prepare(sock, v6_only=v6_only)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(first.getsockname())
            sock.listen(self._config.backlog)
        except OSError as error:
            sock.close()
            host, port = first.getsockname()[:2]
            raise _bind_error(Address(host=host, port=port), error) from None
        return sock

    def _open_path(self, address: Address) -> socket.socket:
        path = address.path
        assert path is not None
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            self._files.append((os.path.abspath(path), os.stat(path).st_ino))
            sock.listen(self._config.backlog)
        except OSError as error:
            sock.close()
            raise _bind_error(address, error) from None
        sock.setblocking(False)
        return sock


def _drop_syn(sock: socket.socket) -> None:
    """Have the kernel drop every TCP segment that asks this listening socket for a connection."""
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 13),  # A = the flags, byte 13 of the TCP header
            (0x45, 0, 1, 0x02),  # if A & SYN
            (0x06, 0, 0, 0),  # drop it
            (0x06, 0, 0, 0xFFFFFFFF),  # else keep all of it
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    option = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def _prepare(sock: socket.socket, *, v6_only: bool) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6_only))


def _v4_ports(addresses: Sequence[Address]) -> frozenset[int]:
    """The ports that one of several addresses takes of IPv4; 0 is a different one each time."""
    hosts = [one for one in addresses if one.path is None and one.fd is None and one.port]
    if len(hosts) < 2:
        return frozenset()
    return frozenset(
        one.port for one in hosts if any(family == socket.AF_INET for family, _ in _resolve(one))
    )


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, tuple[str, int, int, int]]]:
    try:
        found = socket.getaddrinfo(
            address.host or None,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        raise BindError(
            f"cannot listen on {address}: unknown host {address.host!r} ({reason})",
            hint="127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address of it",
        ) from None
    unique = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found)
    return [
        (family, sockaddr)  # type: ignore[misc]
        for family, sockaddr in unique
        if family in (socket.AF_INET, socket.AF_INET6)
    ]


def _adopt(address: Address, backlog: int) -> socket.socket:
    """The inherited descriptor as a listening socket."""
    assert address.fd is not None
    try:
        sock = socket.socket(fileno=os.dup(address.fd))
    except OSError as error:
        raise BindError(
            f"cannot listen on {address}: {error.strerror}",
            hint="the descriptor must be an open socket that the caller left inheritable",
        ) from None
    try:
        if sock.type != socket.SOCK_STREAM:
            raise BindError(f"cannot listen on {address}: it is no stream socket")
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _bind_error(address, error) from None
    except BindError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove the file of a Unix socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise BindError(
                f"cannot listen on unix:{path}: the file exists and is no socket",
                hint="move it away or choose another path",
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise _bind_error(Address(path=path), error) from None
    owner = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise _bind_error(Address(path=path), error) from None
        else:
            owner = _owner(probe)
    in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    raise _bind_error(Address(path=path), in_use, owner)


def _owner(connected: socket.socket) -> int:
    """The process that listens at the other end; 0 if the kernel does not say."""
    with contextlib.suppress(OSError):
        data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(data)[0])
    return 0


_HINTS = {
    errno.EADDRINUSE: "another program listens there; choose another one, or stop it ({who})",
    errno.EACCES: "ports below 1024 and other users' directories need privileges",
    errno.EADDRNOTAVAIL: "this machine does not have that address; 0.0.0.0 is all it has",
    errno.ENOENT: "the directory of the socket does not exist",
}


def _bind_error(address: Address, error: OSError, owner: int = 0) -> BindError:
    reason = error.strerror or str(error)
    if error.errno is not None:
        reason = os.strerror(error.errno)
    how = "ss -ltnp" if address.path is None else "ss -lxp"
    who = f"process {owner}" if owner else f"{how} shows who it is"
    hint = _HINTS.get(error.errno or 0, "").replace("{who}", who)
    return BindError(f"cannot listen on {address}: {reason[:1].lower()}{reason[1:]}", hint=hint)


def _url(sock: socket.socket, address: Address) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    name, port = sock.getsockname()[:2]
    name = address.host or name
    return (
        f"{address.scheme}://[{name}]:{port}"
        if ":" in name
        else f"{address.scheme}://{name}:{port}"
    )
