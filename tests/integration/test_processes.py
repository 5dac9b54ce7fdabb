"""Supervisor, host and contexts as real processes: deaths, signals, reloads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="the supervisor of ppserver"),
]

Start = Callable[..., serving.Server]
LOADED = ("app", "wsgi")


@pytest.fixture
def start(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    """``start(app, **options)``: a server of its own for one test, gone at its end."""

    def run(app: str = "lives:app", *, wait: bool = True, **options: Any) -> serving.Server:
        options.setdefault("contexts", 2)
        if options["contexts"] > 1:
            options.setdefault("place", "processes")
        server = serving.launch(app, tmp_path, **options)
        started.append(server)
        if wait:
            server.wait_started()
        return server

    return run


def get(server: serving.Server, path: str = "/", timeout: float = 15.0) -> str:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def contexts(server: serving.Server) -> list[int]:
    return serving.contexts(server.pid)


def hosts(server: serving.Server) -> list[int]:
    return serving.hosts(server.pid)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def seen_pids(server: serving.Server, count: int = 40) -> set[int]:
    return {int(get(server)) for _ in range(count)}


def wait_until_all_serve(server: serving.Server) -> None:
    """A context is a process before it accepts; until then its neighbour answers for it."""
    serving.wait_until(lambda: seen_pids(server) == set(contexts(server)))


def go(server: serving.Server) -> None:
    (server.directory / "go").touch()


def in_background(function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.mark.parametrize("name", LOADED)
def test_loaded_once_and_served_by_every_context(start: Start, name: str) -> None:
    server = start(f"lives:{name}")
    assert server.records().count("import") == 1
    found = contexts(server)
    assert len(found) == 2
    assert seen_pids(server) == set(found)
    server.stop()


def test_one_context_under_a_supervisor(start: Start) -> None:
    server = start(contexts=1, args=["--contexts", "processes"])
    assert seen_pids(server, 3) == set(contexts(server))
    server.stop()


@pytest.fixture
def start_one(start: Start) -> Start:
    """One context, by a command that says nothing of contexts, without a terminal."""

    def run(*args: str) -> serving.Server:
        return start(contexts=1, args=["--supervise", "auto", *args])

    return run


def test_one_context_is_reloaded_and_recovered(start_one: Start) -> None:
    server = start_one()
    (first,) = contexts(server)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reloaded: host")
    serving.wait_until(lambda: not is_running(first) and len(hosts(server)) == 1, 60)
    (second,) = contexts(server)
    os.kill(second, signal.SIGKILL)
    server.wait_for_log("replacing it")
    assert int(get(server)) not in (first, second)
    server.stop()


def test_one_context_is_replaced_after_its_requests(start_one: Start) -> None:
    server = start_one("--limit-max-requests", "3")
    before = contexts(server)
    for _ in range(3):
        get(server)
    serving.wait_until(lambda: not any(is_running(pid) for pid in before), 60)
    assert int(get(server)) not in before
    server.stop()


def test_at_a_terminal_there_is_one_process(tmp_path: pathlib.Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ppserver", "lives:app", "--app-dir", str(serving.APPS)]
    environ = serving._environment(tmp_path, {})
    with (
        os.fdopen(ours, "rb") as screen,
        subprocess.Popen(
            [*command, "--port", "0"], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
        ) as process,
    ):
        os.close(theirs)
        text = b""
        while b"running on" not in text:
            text += os.read(screen.fileno(), 4096)
        assert b"contexts: 1, in this process (at a terminal)" in text
        assert serving.children(process.pid) == []
        process.terminate()
        with contextlib.suppress(OSError):
            while os.read(screen.fileno(), 4096):
                pass
        assert process.wait(60) == 0


def test_wsgi_is_told_about_other_processes(start: Start) -> None:
    assert get(start("lives:wsgi"), "/multiprocess") == "True"


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_context_is_replaced(start: Start, name: str, number: int) -> None:
    server = start(f"lives:{name}")
    first, second = contexts(server)
    os.kill(first, number)
    server.wait_for_log(rf"Context \d \[{first}\] ended by signal {int(number)}: replacing it")
    serving.wait_until(lambda: len(contexts(server)) == 2 and first not in contexts(server))
    assert second in contexts(server)
    wait_until_all_serve(server)
    server.stop()


def test_a_context_that_ends_itself_is_replaced(start: Start) -> None:
    server = start()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(server, "/exit")
    server.wait_for_log("ended with code 7: replacing it")
    serving.wait_until(lambda: len(seen_pids(server)) == 2)
    server.stop()


def test_a_context_sent_term_by_hand_finishes_and_is_replaced(start: Start) -> None:
    server = start()
    waiting = in_background(lambda: get(server, "/hold"))
    server.wait_for_record("holding")
    before = contexts(server)
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    go(server)
    assert int(waiting.result(serving.MUST_SECONDS)) in before
    serving.wait_until(lambda: len(set(contexts(server)) - set(before)) == 2)
    wait_until_all_serve(server)
    server.stop()


def test_kill_under_load_loses_only_what_the_dead_context_had(start: Start) -> None:
    server = start()
    stop = threading.Event()
    lost: list[str] = []
    served: list[int] = []

    def client() -> None:
        while not stop.is_set():
            try:
                served.append(int(get(server)))
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        serving.wait_until(lambda: len(served) > 50)
        victim, survivor = contexts(server)
        os.kill(victim, signal.SIGKILL)
        server.wait_for_log(f"{victim}.*replacing it")
        serving.wait_until(lambda: len(contexts(server)) == 2)
        mark = len(served)
        serving.wait_until(lambda: set(served[mark:]) >= set(contexts(server)))
    finally:  # or they go on for ever, and fill the memory with what fails
        stop.set()
        for thread in threads:
            thread.join(serving.MUST_SECONDS)
    assert survivor in served[mark:]
    assert len(lost) <= len(threads), lost
    server.stop()


@pytest.mark.parametrize("name", LOADED)
def test_term_loses_no_running_request(start: Start, name: str) -> None:
    server = start(f"lives:{name}")
    waiting = [in_background(lambda: get(server, "/hold")) for _ in range(12)]
    server.wait_for_record("holding", 12)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Shutting down")
    serving.wait_until(lambda: refused(server), what="the port closed")
    go(server)
    pids = {int(future.result(serving.MUST_SECONDS)) for future in waiting}
    assert server.wait() == 0
    server.check_log()
    if name == "app":
        for pid in pids:
            assert f"shutdown {pid}" in server.records()


@pytest.mark.parametrize("mode", ["auto", "processes"])
def test_term_loses_nobody_who_waits_to_be_accepted(start: Start, mode: str) -> None:
    """More connections than one round of accepting takes, all with a request in the kernel."""
    server = start(contexts=1, args=["--contexts", mode])
    blocking = in_background(lambda: get(server, "/block"))
    server.wait_for_record("blocking")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(150)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.process.send_signal(signal.SIGTERM)
        if mode == "processes":
            server.wait_for_log("Shutting down")
        time.sleep(0.1)  # The signal is noticed by the kernel at once, by nobody else.
        go(server)
        assert blocking.result(serving.MUST_SECONDS)
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert server.wait() == 0


def refused(server: serving.Server) -> bool:
    try:
        socket.create_connection((server.host, server.port), 1).close()
    except ConnectionRefusedError:
        return True
    except (ConnectionResetError, TimeoutError):
        pass  # New connections are ignored until the queue is empty and the port closed.
    return False


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("count", [1, 2])
def test_term_under_load_cuts_no_response_short(start: Start, count: int, name: str) -> None:
    server = start(f"lives:{name}", contexts=count)
    broken: list[str] = []
    served: list[int] = []
    stop = threading.Event()

    def client() -> None:
        """Keep-alive; a connection closed between requests is right, within a response not."""
        while not stop.is_set():
            connection = http.client.HTTPConnection(
                server.host, server.port, timeout=serving.MUST_SECONDS
            )
            try:
                while not stop.is_set():
                    connection.request("GET", "/")
                    response = connection.getresponse()
                    served.append(len(response.read()))
            except http.client.RemoteDisconnected:
                pass
            except (ConnectionError, http.client.CannotSendRequest):
                stop.wait(0.001)
            except (http.client.HTTPException, OSError) as error:
                broken.append(repr(error))
            finally:
                connection.close()

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with serving.visitors(server, 3) as (visited, cut):
            serving.wait_until(lambda: len(served) + len(visited) > 100)
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(serving.MUST_SECONDS)
    assert not cut
    assert not broken
    server.check_log()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("path", ["/hold", "/block"])
def test_second_signal_ends_at_once(start: Start, count: int, path: str) -> None:
    server = start(contexts=count)
    waiting = in_background(lambda: get(server, path))
    server.wait_for_record("holding" if path == "/hold" else "blocking")
    server.process.send_signal(signal.SIGINT)
    family = serving.descendants(server.pid)
    time.sleep(0.3)  # Closer together they count as one.
    server.process.send_signal(signal.SIGINT)
    assert server.wait(serving.MUST_SECONDS) == 1
    with pytest.raises((OSError, http.client.HTTPException)):
        waiting.result(serving.MUST_SECONDS)
    serving.wait_until(lambda: not any(is_running(pid) for pid in family))


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_repeated_at_once_counts_once(start: Start, count: int) -> None:
    server = start(contexts=count)
    waiting = in_background(lambda: get(server, "/hold"))
    server.wait_for_record("holding")
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGINT)
    server.wait_for_log("Shutting down")
    go(server)
    assert waiting.result(serving.MUST_SECONDS)
    assert server.wait() == 0


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("count", [1, 2])
def test_quit_does_not_wait_for_requests(start: Start, count: int, name: str) -> None:
    server = start(f"lives:{name}", contexts=count)
    waiting = in_background(lambda: get(server, "/hold"))
    server.wait_for_record("holding")
    server.process.send_signal(signal.SIGQUIT)
    assert server.wait(serving.MUST_SECONDS) == 0
    with pytest.raises((OSError, http.client.HTTPException)):
        waiting.result(serving.MUST_SECONDS)
    ended = sum(line.startswith("shutdown") for line in server.records())
    assert ended == (count if name == "app" else 0)


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("count", [1, 2])
def test_requests_that_do_not_end_are_ended(start: Start, count: int, name: str) -> None:
    server = start(f"lives:{name}", contexts=count, args=["--timeout-graceful-shutdown", "0.2"])
    waiting = in_background(lambda: get(server, "/hold"))
    server.wait_for_record("holding")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait(serving.MUST_SECONDS) == 0
    assert "Requests still running after 0.2 s" in server.log
    with pytest.raises((OSError, http.client.HTTPException)):
        waiting.result(serving.MUST_SECONDS)


@pytest.mark.parametrize("count", [1, 2])
def test_shutdown_delay_goes_on_serving(start: Start, count: int) -> None:
    server = start(contexts=count, args=["--shutdown-delay", "1"])
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Shutting down in 1 s")
    assert get(server)
    assert server.wait(serving.MUST_SECONDS) == 0


def test_control_c_reaches_the_whole_group_and_is_graceful(tmp_path: pathlib.Path) -> None:
    server = serving.launch("lives:app", tmp_path, contexts=2)
    try:
        server.wait_started()
        waiting = in_background(lambda: get(server, "/hold"))
        server.wait_for_record("holding")
        for pid in serving.descendants(server.pid):
            os.kill(pid, signal.SIGINT)
        server.wait_for_log("Shutting down")
        go(server)
        assert int(waiting.result(serving.MUST_SECONDS))
        assert server.wait() == 0
    finally:
        if server.process.poll() is None:
            server.kill()


def test_term_to_every_process_is_graceful(start: Start) -> None:
    """systemd's default: the whole control group is sent SIGTERM."""
    server = start()
    waiting = in_background(lambda: get(server, "/hold"))
    server.wait_for_record("holding")
    for pid in serving.descendants(server.pid):
        os.kill(pid, signal.SIGTERM)
    server.wait_for_log("Shutting down")
    go(server)
    assert int(waiting.result(serving.MUST_SECONDS))
    assert server.wait() == 0


def test_nobody_outlives_a_killed_supervisor(start: Start) -> None:
    server = start()
    family = serving.descendants(server.pid)
    assert len(family) >= 4
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    serving.wait_until(lambda: not any(is_running(pid) for pid in family))


@pytest.mark.parametrize("load", ["once", "each"])
def test_contexts_of_a_killed_host_serve_until_others_do(start: Start, load: str) -> None:
    server = start(args=["--load", load])
    before = set(contexts(server))
    (server.directory / "hold-start").touch()
    (host,) = hosts(server)
    os.kill(host, signal.SIGKILL)
    server.wait_for_record("starting", 2)
    assert hosts(server) != [host]
    assert seen_pids(server) == before
    (server.directory / "hold-start").unlink()
    go(server)
    server.wait_for_log("replaces the one that ended")
    serving.wait_until(lambda: not any(is_running(pid) for pid in before), 60)
    wait_until_all_serve(server)
    assert set(server.records()) >= {f"shutdown {pid}" for pid in before}
    server.stop()


def test_a_context_without_a_host_is_replaced_with_it(start: Start) -> None:
    server = start()
    first, second = contexts(server)
    (server.directory / "hold-start").touch()
    os.kill(hosts(server)[0], signal.SIGKILL)
    server.wait_for_record("starting", 2)
    os.kill(first, signal.SIGKILL)
    server.wait_for_log(rf"Context \d \[{first}\] ended by signal 9")
    assert seen_pids(server) == {second}
    go(server)
    serving.wait_until(lambda: not is_running(second), 60)
    wait_until_all_serve(server)
    assert len(contexts(server)) == 2
    server.stop()


def test_stopped_and_killed_without_a_host(start: Start) -> None:
    server = start()
    (server.directory / "fail-import").touch()
    server.allow("the application|ExpectedError|import")
    os.kill(hosts(server)[0], signal.SIGKILL)
    server.wait_for_log("(?s)could not be loaded: trying again.*could not be loaded: trying again")
    assert seen_pids(server) == set(contexts(server))
    server.process.send_signal(signal.SIGUSR1)
    serving.wait_until(lambda: server.log.count("Log files reopened.") >= 3, 60)
    server.stop()


def test_nobody_outlives_a_supervisor_killed_without_a_host(start: Start) -> None:
    server = start()
    (server.directory / "fail-import").touch()
    os.kill(hosts(server)[0], signal.SIGKILL)
    server.wait_for_log("could not be loaded: trying again")
    family = contexts(server)
    assert len(family) == 2
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    serving.wait_until(lambda: not any(is_running(pid) for pid in family))


@pytest.mark.parametrize("name", LOADED)
def test_reload_replaces_everything_and_refuses_nobody(start: Start, name: str) -> None:
    server = start(f"lives:{name}")
    before = contexts(server)
    stop = threading.Event()
    served: list[int] = []

    def client() -> None:
        while not stop.is_set():
            served.append(int(get(server)))

    load = in_background(client)
    try:
        serving.wait_until(lambda: len(served) > 20)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("Reloaded: host")
        serving.wait_until(lambda: not any(is_running(pid) for pid in before))
        mark = len(served)
        serving.wait_until(lambda: len(served) > mark + 40)
    finally:
        stop.set()
    load.result(serving.MUST_SECONDS)
    assert set(served[mark + 1 :]) <= set(contexts(server))
    assert server.records().count("import") == 2
    serving.wait_until(lambda: len(hosts(server)) == 1, 60, "the old host has ended")
    server.stop()


def test_a_signal_during_a_reload_is_remembered(start: Start) -> None:
    """The code may have changed after the new host has read it."""
    server = start()
    (server.directory / "hold-start").touch()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_record("starting", 2)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("reloading once more after that")
    (server.directory / "hold-start").unlink()
    go(server)
    serving.wait_until(lambda: server.log.count("Reloaded: host") == 2, 60)
    assert server.records().count("import") == 3
    wait_until_all_serve(server)
    server.stop()


def test_a_reload_that_hangs_ends(start: Start) -> None:
    """And the next one, for which a signal came meanwhile, is begun."""
    server = start(args=["--timeout-reload", "3"])
    before = contexts(server)
    (server.directory / "hold-start").touch()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_record("starting", 2)
    (server.directory / "hold-start").unlink()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reload failed: it took longer than 3 seconds. The old contexts go on.")
    server.wait_for_log("Reloaded: host", 60)
    serving.wait_until(lambda: not any(is_running(pid) for pid in before), 60)
    server.stop()


@pytest.mark.parametrize("how", ["fail-import", "fail-start", "die-at-start"])
def test_a_failed_reload_leaves_the_old_contexts(start: Start, how: str) -> None:
    server = start()
    server.allow("the application")
    before = set(contexts(server))
    (server.directory / how).touch()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reload failed")
    serving.wait_until(lambda: len(hosts(server)) == 1)
    assert seen_pids(server) == before
    (server.directory / how).unlink()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reloaded: host")
    serving.wait_until(lambda: not any(is_running(pid) for pid in before))
    wait_until_all_serve(server)
    server.stop()


def test_more_and_fewer_contexts(start: Start) -> None:
    server = start()
    before = contexts(server)
    server.process.send_signal(signal.SIGTTIN)
    serving.wait_until(lambda: len(contexts(server)) == 3)
    serving.wait_until(lambda: len(seen_pids(server)) == 3)
    server.process.send_signal(signal.SIGTTOU)
    serving.wait_until(lambda: contexts(server) == before)
    assert seen_pids(server) == set(before)
    server.process.send_signal(signal.SIGTTOU)
    serving.wait_until(lambda: len(contexts(server)) == 1)
    wait_until_all_serve(server)
    server.stop()


@pytest.mark.parametrize("place", ["processes", "threads"])
def test_who_waits_for_a_context_given_up_at_its_start_is_served(start: Start, place: str) -> None:
    """The kernel queues connections for a context as soon as its socket listens."""
    args = ["--factory"] if place == "threads" else []
    server = start("lives:make" if args else "lives:app", place=place, args=args)
    (server.directory / "slow-start").touch()
    server.process.send_signal(signal.SIGTTIN)
    serving.wait_until(lambda: "starting slowly" in server.records())
    with contextlib.ExitStack() as stack:
        address = (server.host, server.port)
        clients = [
            stack.enter_context(contextlib.closing(socket.create_connection(address, 15)))
            for _ in range(24)
        ]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        server.process.send_signal(signal.SIGTTOU)
        server.process.send_signal(signal.SIGUSR1)  # When this is done, so is the other.
        server.wait_for_log("Log files reopened")
        (server.directory / "go").touch()
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    server.wait_for_log("Contexts: 2")
    server.stop()


def test_reopening_logs_ends_nobody(start: Start) -> None:
    server = start()
    before = contexts(server)
    server.process.send_signal(signal.SIGUSR1)
    serving.wait_until(lambda: server.log.count("Log files reopened.") == 4)
    assert seen_pids(server) == set(before)
    server.stop()


def test_max_requests_replaces_contexts_without_a_gap(start: Start) -> None:
    server = start(args=["--limit-max-requests", "5"])
    before = set(contexts(server))

    def replaced() -> bool:
        assert get(server)
        return not any(is_running(pid) for pid in before)

    serving.wait_until(replaced)
    assert get(server)
    server.stop()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("how", ["fail-import", "fail-start"])
def test_a_start_that_fails_ends_with_3(
    start: Start, tmp_path: pathlib.Path, count: int, how: str
) -> None:
    (tmp_path / how).touch()
    server = start(contexts=count, wait=False)
    assert server.wait() == 3
    assert server.log.count("ppserver: error: ") >= 1
    if how == "fail-import":
        assert "lives.py" in server.log
        assert "loader.py" not in server.log
        assert server.log.count("ppserver: error: ") == 1
    else:
        assert "application startup failed: no database" in server.log


def test_contexts_that_die_at_the_start_end_the_server(
    start: Start, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "die-at-start").touch()
    server = start(wait=False)
    assert server.wait() == 3
    assert "could not start" in server.log


def test_replacements_that_cannot_start_end_the_server_in_the_end(start: Start) -> None:
    server = start()
    (server.directory / "die-at-start").touch()
    os.kill(contexts(server)[0], signal.SIGKILL)
    assert server.wait() == 3
    assert "failed to start 5 times" in server.log


@pytest.mark.parametrize("count", [1, 2])
def test_term_during_the_start(start: Start, tmp_path: pathlib.Path, count: int) -> None:
    (tmp_path / "hold-start").touch()
    server = start(contexts=count, wait=False)
    server.wait_for_record("starting", count)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_start_that_takes_long_says_how_far_it_is(
    tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    program = (
        "import sys; from ppserver import cli; from ppserver.supervision import supervisor; "
        "supervisor._PROGRESS_FIRST = 0.2; "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    (tmp_path / "hold-start").touch()
    command = [sys.executable, "-c", program, "lives:app", "--port", "0", "--cores", "2"]
    command += ["--app-dir", str(serving.APPS), "--contexts", "processes"]
    server = serving.Server(command, serving._environment(tmp_path, {}), tmp_path)
    started.append(server)
    server.wait_for_log("0 of 2 contexts are ready after . s")
    go(server)
    server.wait_started()
    server.stop()


@pytest.mark.wide
@pytest.mark.timeout(30 * 60)
def test_four_hundred_contexts(start: Start) -> None:
    """The channel has no room for all orders, and the board for all contexts: nothing is lost."""
    count = 400
    server = start(contexts=count, wait=False, args=["--no-access-log"])
    seconds = 10 * serving.MUST_SECONDS
    server.wait_for_log("running on", seconds)
    server.wait_started()
    lost: list[str] = []
    served: set[int] = set()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                served.add(int(get(server, timeout=serving.MUST_SECONDS)))
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for how in (signal.SIGHUP, signal.SIGKILL):
            before = set(contexts(server))
            assert len(before) == count
            served.clear()
            serving.wait_until(lambda before=before: served >= before, seconds, "all serve")
            os.kill(server.pid if how == signal.SIGHUP else hosts(server)[0], how)
            server.wait_for_log(
                "Reloaded: host" if how == signal.SIGHUP else "replaces the one that ended", seconds
            )
            serving.wait_until(
                lambda before=before: not before & set(contexts(server)), seconds, "the old end"
            )
        assert len(contexts(server)) == count
    finally:
        stop.set()
        for thread in threads:
            thread.join(serving.MUST_SECONDS)
    assert lost == []
    server.stop()


def test_generators_are_seeded_anew(start: Start, tmp_path: pathlib.Path) -> None:
    serving.require("numpy")
    (tmp_path / "use-numpy").touch()
    server = start()
    found = [get(server, "/numbers").split() for _ in range(40)]
    for column in zip(*found, strict=True):
        assert len(set(column)) == len(column)
    server.stop()


def test_unix_socket_shared_by_contexts(start: Start, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    server = start(wait=False, args=["--uds", str(path)])
    server.wait_for_log("running on unix:")
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b" 200 " in client.recv(4096)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not path.exists()
