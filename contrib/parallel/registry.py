"""What a program wants to serve: where it listens or connects, and the protocol of each."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from parallel import background, files, main_thread, system, work
from parallel.protocol import Protocol as Description
from parallel.protocol import describe

if TYPE_CHECKING:
    from ppserver.app.programs import Running

_CONNECT_SECONDS = 30.0
_LOOK_SECONDS = 0.02
_OPEN = 1  # the life of a context that takes connections (native/net/board.h)


class RootTransport:
    """What servers and clients have in common: the ``parent`` of their connections' transports.

    Its counters are those of all its connections, in all contexts; numbers that only Windows has
    are 0. docs/reference/parallel.md says what each one is.
    """

    parent = None
    protocol: Any = None
    sock_type = socket.SOCK_STREAM
    sock_proto = socket.IPPROTO_TCP
    sock_timeout = 0  # no call blocks on a socket
    http_header: bytes | None = None
    stopwatch_frequency = 1_000_000
    # AcceptEx, which is given sockets beforehand, and the semaphore for that.
    num_accepts_to_post = negative_accepts_to_post_count = clients_disconnecting = 0
    sem_acquired = sem_released = sem_timeout = sem_count = sem_release_err = 0
    # Of one connection.
    send_id = recv_id = num_bytes_just_sent = num_bytes_just_received = 0

    def __init__(self, host: str, port: int) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host: expected str, not {type(host).__name__}")
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise ValueError(f"port: expected 0 to 65535, got {port!r}")
        self.host = host
        self.ip = host
        self.port = port
        self.sock_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.stopwatch_start = time.monotonic_ns() // 1000
        self._registry: Registry | None = None  # that of the program, or of start()

    @property
    def address(self) -> str:
        """As ``--bind`` takes it."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self.stopwatch_elapsed / self.stopwatch_frequency

    def next_send_id(self) -> int:
        """1: nothing is sent but by connections."""
        return 1

    def shutdown_server(self) -> None:
        """End the whole server gracefully, as SIGTERM does. From any context."""
        if self._registry is None:
            raise RuntimeError("the server is not running")
        self._registry.stop()

    shutdown = close = shutdown_server
    readfile = staticmethod(files.readfile)
    writefile = staticmethod(files.writefile)

    @property
    def stopwatch_stop(self) -> int:
        return time.monotonic_ns() // 1000

    @property
    def stopwatch_elapsed(self) -> int:
        return self.stopwatch_stop - self.stopwatch_start

    @property
    def last_thread_id(self) -> int:
        return threading.get_native_id()

    this_thread_id = last_thread_id

    @property
    def thread_seq_id_bitmap(self) -> int:
        return 1 << (system.thread_seq_id() - 1)

    @property
    def recvbuf_size(self) -> int:
        with socket.socket(self.sock_family) as sample:
            return sample.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    @property
    def sendbuf_size(self) -> int:
        with socket.socket(self.sock_family) as sample:
            return sample.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def _counted(self, which: int) -> int:
        return 0 if self._registry is None else self._registry.counted(self)[which]

    num_children = property(lambda self: self._counted(0))
    clients_connected = client_connected_count = num_children
    fd_accept_count = property(lambda self: self._counted(1))
    total_accepts_attempted = fd_accept_count
    total_bytes_received = property(lambda self: self._counted(2))
    total_bytes_sent = property(lambda self: self._counted(3))

    @property
    def retired_clients(self) -> int:
        now, all_of_them, _, _ = self._registry.counted(self) if self._registry else (0, 0, 0, 0)
        return all_of_them - now

    total_clients_reused = total_clients_recycled = retired_clients

    @property
    def accepts_posted(self) -> int:
        rows = self._registry.contexts() if self._registry is not None else []
        return sum(row["life"] == _OPEN for row in rows)

    target_accepts_posted = accepts_posted

    @property
    def ioloops(self) -> int:
        rows = self._registry.contexts() if self._registry is not None else []
        return sum(row["turns"] for row in rows)


class ServerTransport(RootTransport):
    """Where a server listens.

    ``host`` is a name or an address, ``""`` and ``"0.0.0.0"`` mean all interfaces. ``port`` 0 lets
    the system choose one.
    """

    def __init__(self, host: str = "", port: int = 0) -> None:
        super().__init__(host, port)
        self.ip = host or "0.0.0.0"
        self._background: background.Background | None = None
        self.was_started = False  # ever: then the program does not serve it at its end

    def __repr__(self) -> str:
        return f"<parallel server on {self.ip}:{self.port}>"

    @property
    def is_started(self) -> bool:
        """Whether `start` has been called, and `stop` has not since."""
        return self._background is not None and self._background.is_alive()

    def start(self, *, cores: int | str | None = None, **settings: Any) -> None:
        """Serve this transport within this process, while the program, or a prompt, goes on.

        On a free-threaded Python with as many contexts as ``cores`` says, all by default; with a
        GIL it is one, in a thread. Returns once it serves; then ``port`` is the real one.
        ``settings`` as for `run`. Raises RuntimeError if it has no protocol or has been started,
        ``ppserver.PPServerError`` if it cannot.
        """
        if self._registry is None:
            raise RuntimeError("no protocol: parallel.register() comes first")
        if self.is_started:
            raise RuntimeError("it has been started")
        self.stop(0.0)  # What is left of one that a callback has ended.
        alone = self._registry.only(self)
        started = background.Background(alone)
        started.start(cores, settings)
        self._background, self._program = started, self._registry
        self._registry, self.was_started = alone, True

    def stop(self, timeout: float = 30.0) -> None:
        """End what `start` has begun: requests may end, for ``timeout`` seconds, and the port is
        free afterwards. It may be started again. Does nothing if it does not serve."""
        running, self._background = self._background, None
        if running is not None:
            running.stop(timeout)
            self._registry = self._program


class ClientTransport(RootTransport):
    """A connection that the program makes: to ``host`` and ``port``, by the first context."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        if port == 0:
            raise ValueError("port: a client needs one")

    def __repr__(self) -> str:
        return f"<parallel client of {self.ip}:{self.port}>"

    def _connect(self, core: Any, tag: int) -> None:
        """Runs on a thread of its own."""
        try:
            made = socket.create_connection((self.host, self.port), _CONNECT_SECONDS)
        except (OSError, UnicodeError) as error:  # The latter of a name that can be none.
            self._failed(error)
            return
        with made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setblocking(False)
            _bring(core, made.fileno(), tag)
            made.detach()

    def _failed(self, error: Exception) -> None:
        protocol = self.protocol() if isinstance(self.protocol, type) else self.protocol
        tell = getattr(protocol, "connection_error", None)
        if tell is None:
            raise ConnectionError(f"{self.address}: {error}") from error
        tell(self, error)


def _bring(core: Any, fd: int, tag: int) -> None:
    """Give the core a connection; its loop may be about to run, as clients connect meanwhile."""
    end = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            core.bring(fd, tag)
            return
        except RuntimeError:  # Not yet, or not any more.
            if core.draining or time.monotonic() > end:
                raise
        time.sleep(0.001)


def _not_serving() -> None:
    raise RuntimeError("the server is not running")


class Registry:
    """What a program has registered, in order: a position is the tag of a protocol's listeners.

    ppserver serves it, as a ``ppserver.app.programs.Program``: see "for ppserver".
    """

    is_ppserver_program = True  # ppserver knows it by this, without importing us
    usage = "parallel.register(transport=parallel.server(HOST, PORT), protocol=...)"

    def __init__(self) -> None:
        self.transports: list[RootTransport] = []
        self.protocols: list[Description] = []
        self._running: list[Running] = []
        self._board: Any = None
        self._lock = threading.Lock()
        self._stop: Callable[[], None] = _not_serving

    @property
    def servers(self) -> list[ServerTransport]:
        return [each for each in self.transports if isinstance(each, ServerTransport)]

    @property
    def clients(self) -> list[ClientTransport]:
        return [each for each in self.transports if isinstance(each, ClientTransport)]

    def add(self, transport: RootTransport, protocol: Any) -> None:
        """Serve ``transport`` with ``protocol``. Raises TypeError or ValueError."""
        if not isinstance(transport, RootTransport):
            raise TypeError(
                "transport: expected what server() or client() returns, "
                f"not {type(transport).__name__}"
            )
        if transport.protocol is not None:
            raise ValueError(f"{transport!r} has a protocol already")
        described = describe(protocol, transport)
        if isinstance(transport, ClientTransport) and not described.raw:
            raise ValueError("a client has no http11 protocol: that is for servers")
        transport.protocol = protocol
        transport._registry = self
        self.transports.append(transport)
        self.protocols.append(described)

    def only(self, transport: RootTransport) -> Registry:
        """Another one, of this transport alone, for a server of its own."""
        alone = Registry()
        alone.transports = [transport]
        alone.protocols = [self.protocols[self.transports.index(transport)]]
        return alone

    def stop(self) -> None:
        """End the server. RuntimeError if there is none."""
        self._stop()

    # ---- numbers ----

    def counted(self, transport: RootTransport) -> tuple[int, int, int, int]:
        """Of all contexts: connections now, and so far; bytes received, and sent."""
        tag = self.transports.index(transport)
        board = self._board
        if board is not None:
            rows = [board.read_tags(slot) for slot in range(board.slots)]
        else:
            rows = [row for core in self._cores() if (row := _open(core.tag_stats)) is not None]
        found = [row[min(tag, len(row) - 1)] for row in rows]
        return cast(
            tuple[int, int, int, int], tuple(sum(one[field] for one in found) for field in range(4))
        )

    def contexts(self) -> list[dict[str, int]]:
        """The counters of every context that runs."""
        board = self._board
        if board is not None:
            rows = [board.read(slot) for slot in range(board.slots)]
            found = [row for row in rows if row["life"]]
        else:
            stats = [_open(core.stats) for core in self._cores()]
            found = [{**row, "life": _OPEN} for row in stats if row is not None]
        for server in self.servers:  # Those that start() serves have one of their own.
            if server._registry is not None and server._registry is not self:
                found += server._registry.contexts()
        return found

    def _cores(self) -> list[Any]:
        with self._lock:
            return [running.core for running in self._running]

    # ---- for ppserver ----

    @property
    def addresses(self) -> list[list[str]]:
        """By tag, ``HOST:PORT`` of what to listen on; a client's is empty."""
        return [
            [each.address] if isinstance(each, ServerTransport) else [] for each in self.transports
        ]

    def scheme(self, tag: int) -> str:
        """What its addresses begin with when they are shown: a class that speaks HTTP by itself
        says so by ``url_scheme``."""
        default = "tcp" if self.protocols[tag].raw else "http"
        return str(getattr(self.transports[tag].protocol, "url_scheme", default))

    def is_raw(self, tag: int) -> bool:
        """Whether connections of ``tag`` are bytes for the protocol, not HTTP."""
        return self.protocols[tag].raw

    def listens(self, tag: int, name: Any) -> None:
        """The server of ``tag`` listens on what ``getsockname()`` gives as ``name``, so one that
        left the port to the system learns it."""
        server = self.transports[tag]
        if server.port == 0 and isinstance(name, tuple):
            server.port = name[1]

    def table(self) -> tuple[dict[str, Any], ...]:
        """The argument of ``Core.serve_parallel``."""
        return tuple(protocol.as_mapping() for protocol in self.protocols)

    def before_contexts(self, board: Any, *, forked: bool) -> None:
        """This process is going to hold contexts, or to fork them."""
        self._board = board
        refusal = "under processes nothing can be submitted in the main thread once contexts run"
        if forked or not work.has_begun():
            work.settle(refusal if forked else "")

    def perform(self, errand: bytes) -> bytes:
        """What a context that shares no objects wants done here."""
        return main_thread.perform(errand)

    def context_began(self, running: Running) -> None:
        """A context serves in this process."""
        with self._lock:
            self._running.append(running)
            self._stop = running.stop
            if running.board is not None:
                self._board = running.board
        main_thread.starts(running.main)
        if running.slot == 0:
            work.begin()
            self._connect(running)
            if not self.servers:
                threading.Thread(
                    target=self._stop_when_idle, name="parallel clients", daemon=True
                ).start()
        elif running.main.pickles:
            work.begin_elsewhere()

    def _connect(self, running: Running) -> None:
        for tag, transport in enumerate(self.transports):
            if isinstance(transport, ClientTransport):
                work.submit_io(transport._connect, (running.core, tag))

    def _stop_when_idle(self) -> None:
        """Of a program without servers: it ends when its connections have, and its work."""
        while work.pending() or any(self.counted(client)[0] for client in self.clients):
            time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(RuntimeError):
            self.stop()

    def context_ended(self, running: Running) -> None:
        """It does not any more."""
        with self._lock:
            self._running.remove(running)
            last = not self._running
        if running.main.pickles:
            return
        main_thread.ends(running.main)
        if last:
            self._stop = _not_serving
            self._board = None


def _open(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # Its core has been closed just now.
        return None


registry = Registry()
