"""Signals and sudden deaths while requests are running."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import serving
from rawhttp import ClosedError, Raw

pytestmark = pytest.mark.slow


@pytest.fixture(params=["asyncio", "uvloop", "threads"])
def loop(request: pytest.FixtureRequest) -> str:
    """An event loop in processes, or asyncio in contexts that are threads."""
    return str(request.param)


def needs_processes(loop: str) -> None:
    if loop == "threads":
        pytest.skip("a thread can not be killed, nor told apart from its neighbour by number")


@contextlib.contextmanager
def running(
    directory: pathlib.Path, loop: str, contexts: int, *args: str
) -> Iterator[serving.Server]:
    args = ("--no-access-log", *args)
    place = "auto" if contexts == 1 else "processes"
    if loop == "threads":
        loop, place = "asyncio", "threads"
    server = serving.launch(
        "wire:app", directory, loop=loop, contexts=contexts, place=place, args=args
    )
    try:
        server.wait_started()
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def state_of(pid: int) -> str:
    """As in ps; empty for a process that is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def contexts_of(server: serving.Server) -> list[int]:
    return serving.contexts(server.pid)


class Client:
    """Asks without a pause over connections that it keeps; notes how each request ended.

    A request *began* when a byte of its answer came, or when the whole of it was sent on a
    connection that a context had already served: from then on it must be answered in full.
    """

    def __init__(self, server: serving.Server, path: str) -> None:
        self.server = server
        self.path = path
        self.ends: collections.Counter[str] = collections.Counter()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                raw = Raw(self.server)
            except ConnectionRefusedError:
                self.ends["refused"] += 1
                return
            except OSError as error:
                self.ends[f"connect: {error!r}"] += 1
                return
            with raw:
                asked = 0
                while not self.stop.is_set():
                    number += 1
                    asked += 1
                    end = self.ask(raw, number)
                    self.ends["good" if end in ("good", "last") else f"{end}, {asked == 1}"] += 1
                    if end != "good":
                        break

    def ask(self, raw: Raw, number: int) -> str:
        try:
            raw.request(f"{self.path}?id={number}")
            answer = raw.read_response()
        except (ClosedError, ConnectionResetError, BrokenPipeError) as error:
            cut = isinstance(error, ClosedError) and "closed after b''" not in str(error)
            return "cut" if cut or raw.buffer else "unanswered"
        except OSError as error:
            return repr(error)
        if answer.status != 200 or not answer.body.endswith(b" %d" % number):
            return f"wrong {answer.status} {answer.body!r}"
        return "last" if answer.get("connection") == "close" else "good"


def total(clients: list[Client]) -> collections.Counter[str]:
    ends: collections.Counter[str] = collections.Counter()
    for client in clients:
        ends += client.ends
    return ends


def finish(clients: list[Client]) -> collections.Counter[str]:
    for client in clients:
        client.stop.set()
    for client in clients:
        client.thread.join(serving.MUST_SECONDS)
        assert not client.thread.is_alive()
    return total(clients)


def until_good(clients: list[Client], more: int) -> None:
    before = total(clients)["good"]
    serving.wait_until(lambda: total(clients)["good"] >= before + more, what=f"{more} good answers")


def connections_of_each(
    server: serving.Server, contexts: list[int], least: int
) -> list[tuple[int, Raw]]:
    """Kept connections with the pid that serves each, at least so many for every context.

    On a busy machine a context that gets no processor gets no connections for a while, either.
    """
    held: list[tuple[int, Raw]] = []

    def enough() -> bool:
        raw = Raw(server)
        held.append((int(raw.ask("/pid").body), raw))
        counts = collections.Counter(pid for pid, _ in held)
        return all(counts[pid] >= least for pid in contexts)

    serving.wait_until(enough, what=f"{least} connections for each of {contexts}")
    return held


@pytest.mark.parametrize(("contexts", "path"), [(1, "/hello"), (2, "/later")])
def test_sigterm_under_load(tmp_path: pathlib.Path, loop: str, contexts: int, path: str) -> None:
    """No request that was accepted and sent is lost; then the server ends with 0.

    On a kept connection the server may close at the moment the next request is on its way; every
    HTTP client has to ask again then. So does ours; it must never see half an answer, nor a new
    connection that was accepted and left alone.
    """
    with running(tmp_path, loop, contexts) as server:
        clients = [Client(server, path) for _ in range(6)]
        until_good(clients, 500)
        server.process.send_signal(signal.SIGTERM)
        code = server.wait()
        ends = finish(clients)
        assert code == 0, server.log
        server.check_log()
    allowed = {"good", "refused", "unanswered, False"}
    assert set(ends) <= allowed, ends
    assert ends["unanswered, False"] <= len(clients)


@pytest.mark.parametrize("contexts", [1, 2])
def test_sigterm_waits_for_what_runs(tmp_path: pathlib.Path, loop: str, contexts: int) -> None:
    """Requests in each stage: not yet answered, half answered, with its body on the way."""
    with running(tmp_path, loop, contexts) as server, contextlib.ExitStack() as stack:
        slow, half, body, idle = (stack.enter_context(Raw(server)) for _ in range(4))
        idle.ask("/hello")
        slow.request("/later?seconds=0.5&id=slow")
        half.request("/hangs?id=half&started=1")
        body.request("/echo?id=body", "Content-Length: 10", method="POST")
        body.send(b"01234")
        for line in ("GET /later slow", "waiting half", "POST /echo body"):
            server.wait_for_record(line)
        half.read_until(b"begun")
        server.process.send_signal(signal.SIGTERM)
        assert idle.is_closed()
        body.send(b"56789")
        assert body.read_response().body == b"0123456789"
        assert slow.read_response().body == b"later slow"
        assert server.process.poll() is None
        # The last one would wait for the whole graceful time: a second signal ends it.
        server.process.send_signal(signal.SIGINT)
        server.wait()


def test_sigint_twice_does_not_wait(tmp_path: pathlib.Path, loop: str) -> None:
    with running(tmp_path, loop, 2) as server, Raw(server) as raw:
        raw.request("/hangs?id=for-ever")
        server.wait_for_record("waiting for-ever")
        server.process.send_signal(signal.SIGINT)
        server.wait_for_log("Shutting down")
        time.sleep(0.4)  # Closer together they count as one.
        server.process.send_signal(signal.SIGINT)
        server.wait()
        with contextlib.suppress(ConnectionError):
            assert raw.read_to_end() == b""


def test_graceful_time_is_over(tmp_path: pathlib.Path, loop: str) -> None:
    """A request that hangs is cut when the time is over, and only then."""
    args = ("--timeout-graceful-shutdown", "0.5")
    with running(tmp_path, loop, 1, *args) as server, Raw(server) as raw:
        raw.request("/hangs?id=hung&started=1")
        raw.read_until(b"begun\r\n")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert raw.is_closed()
        assert time.monotonic() - began > 0.45
        assert server.wait() in (0, 1)


def test_context_killed_under_load(tmp_path: pathlib.Path, loop: str) -> None:
    """Only its own connections break; it is replaced, and both contexts serve again."""
    needs_processes(loop)
    with running(tmp_path, loop, 2) as server:
        clients = [Client(server, "/later") for _ in range(8)]
        until_good(clients, 300)
        kept = broken = 0
        for round_ in range(3):
            before = contexts_of(server)
            assert len(before) == 2
            killed = before[round_ % 2]
            held = connections_of_each(server, before, 4)
            os.kill(killed, signal.SIGKILL)

            def replaced(gone: int = killed) -> bool:
                now = contexts_of(server)
                return len(now) == 2 and gone not in now

            serving.wait_until(replaced, what="a new context")
            for pid, raw in held:
                alive = False
                with contextlib.suppress(ClosedError, ConnectionError), raw:
                    alive = raw.ask("/hello").status == 200
                kept += alive and pid != killed
                broken += not alive and pid == killed
            # Clients whose connection broke go on; so does everybody.
            for number, client in enumerate(clients):
                if not client.thread.is_alive():
                    clients[number] = Client(server, "/later")
            until_good(clients, 200)
        # Not every one: a connection may have been handed over between the answer and the kill.
        assert kept > 0
        assert broken > 0
        ends = finish(clients)
        assert not any(end.startswith("wrong") for end in ends), ends
        server.stop(check=False)


def test_children_are_gone_after_the_parents_death(tmp_path: pathlib.Path, loop: str) -> None:
    with running(tmp_path, loop, 2) as server:
        clients = [Client(server, "/hello") for _ in range(3)]
        until_good(clients, 50)
        family = serving.descendants(server.pid)
        assert len(family) >= (2 if loop == "threads" else 4)
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
        serving.wait_until(
            lambda: all(state_of(pid) in ("", "Z") for pid in family[1:]), 10, "all are gone"
        )
        finish(clients)


def test_a_killed_host_costs_nobody_an_answer(tmp_path: pathlib.Path, loop: str) -> None:
    """Its contexts serve until those of a new one do."""
    needs_processes(loop)
    with running(tmp_path, loop, 2) as server:
        clients = [Client(server, "/later") for _ in range(6)]
        until_good(clients, 200)
        old = contexts_of(server)
        os.kill(serving.hosts(server.pid)[0], signal.SIGKILL)
        server.wait_for_log("replaces the one that ended")
        serving.wait_until(lambda: not set(old) & set(serving.descendants(server.pid)))
        until_good(clients, 200)
        ends = finish(clients)
        assert set(ends) <= {"good", "unanswered, False"}, ends  # As in a reload.
        assert ends["unanswered, False"] <= 2 * len(clients)
        server.stop()


def test_reload_under_load(tmp_path: pathlib.Path, loop: str) -> None:
    """HUP: new processes take over; nobody loses an answer."""
    with running(tmp_path, loop, 2) as server:
        clients = [Client(server, "/later") for _ in range(6)]
        until_good(clients, 200)
        old = contexts_of(server)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("Reloaded")
        serving.wait_until(lambda: not set(old) & set(serving.descendants(server.pid)))
        until_good(clients, 200)
        ends = finish(clients)
        assert set(ends) <= {"good", "unanswered, False"}, ends
        assert ends["unanswered, False"] <= 2 * len(clients)
        server.stop()


def test_a_context_that_is_stopped_in_its_sleep(tmp_path: pathlib.Path, loop: str) -> None:
    """SIGSTOP, as a debugger or a laptop does: afterwards it goes on where it was."""
    needs_processes(loop)
    with running(tmp_path, loop, 1) as server, contextlib.ExitStack() as stack:
        raw = stack.enter_context(Raw(server))
        assert raw.ask("/hello").status == 200
        server.process.send_signal(signal.SIGSTOP)
        raw.request("/later?id=x")
        raw.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            raw.fill()
        server.process.send_signal(signal.SIGCONT)
        raw.socket.settimeout(serving.MUST_SECONDS)
        assert raw.read_response().body == b"later x"
        server.stop()


def test_port_is_free_at_once(tmp_path: pathlib.Path, loop: str) -> None:
    """Old connections do not keep the address from the next server."""
    with running(tmp_path, loop, 1) as server:
        port = server.port
        with Raw(server) as raw:
            raw.ask("/hello", "Connection: close")
            server.stop()
    with running(tmp_path, loop, 1, "--port", str(port)) as server:
        with socket.create_connection(("127.0.0.1", port), serving.MUST_SECONDS):
            pass
        server.stop()


def one_answer(server: serving.Server) -> str:
    """How a request on a connection of its own ends."""
    try:
        with socket.create_connection((server.host, server.port), serving.MUST_SECONDS) as client:
            client.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    except OSError as error:
        return type(error).__name__
    return "good" if answer.startswith(b"HTTP/1.1 200 ") else f"wrong {answer!r}"


@pytest.mark.parametrize("how", ["more and fewer", "reload"])
def test_nobody_is_lost_while_contexts_come_and_go(
    tmp_path: pathlib.Path, loop: str, how: str
) -> None:
    """Contexts retire all the time, and meanwhile their number changes, or all are replaced."""
    ends: collections.Counter[str] = collections.Counter()
    stop = threading.Event()
    with running(tmp_path, loop, 3, "--limit-max-requests", "200") as server:

        def run() -> None:
            while not stop.is_set():
                ends[one_answer(server)] += 1

        clients = [threading.Thread(target=run) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for round_ in range(6):
                seen = ends["good"]
                serving.wait_until(lambda seen=seen: ends["good"] > seen + 300)
                number = signal.SIGHUP
                if how == "more and fewer":
                    number = signal.SIGTTIN if round_ % 2 else signal.SIGTTOU
                server.process.send_signal(number)
        finally:
            stop.set()
            for client in clients:
                client.join(serving.MUST_SECONDS)
        assert set(ends) == {"good"}, ends
        server.stop()
