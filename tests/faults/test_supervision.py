"""System calls of supervisor and host that fail, and contexts that work against them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection

import pytest
import serving
from rawhttp import Raw

Start = Callable[..., serving.Server]


@pytest.fixture
def start(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    """``start(*args)``: two contexts of tests/apps/rebels.py, gone at the end of the test."""

    def run(*args: str, contexts: int = 2) -> serving.Server:
        server = serving.launch(
            "rebels:app", tmp_path, contexts=contexts, place="processes", args=args
        )
        started.append(server)
        server.wait_started()
        return server

    return run


def ask(server: serving.Server, path: str = "/") -> int:
    """Who answers a request on a connection of its own."""
    with Raw(server) as raw:
        return int(raw.ask(path).body)


def host_of(server: serving.Server) -> int:
    return serving.hosts(server.pid)[-1]


def contexts_of(server: serving.Server) -> set[int]:
    return set(serving.contexts(server.pid))


def wait_for_contexts(
    server: serving.Server, count: int, but: Collection[int] = frozenset()
) -> None:
    """Until there are so many, none of them in ``but``, and they answer."""

    def there() -> bool:
        found = contexts_of(server)
        return len(found) == count and not found.intersection(but)

    serving.wait_until(there, 60, f"{count} contexts")
    assert ask(server)


def test_a_context_that_cannot_be_forked_is_tried_again(start: Start) -> None:
    server = start()
    victim, other = sorted(contexts_of(server))
    (server.directory / "no-fork").touch()
    os.kill(victim, signal.SIGKILL)
    server.wait_for_record("no fork", 3)
    assert "could not be started (Resource temporarily unavailable)" in server.log
    assert contexts_of(server) == {other}
    assert ask(server) == other
    (server.directory / "no-fork").unlink()
    wait_for_contexts(server, 2, {victim})
    assert other in contexts_of(server)
    server.stop()


def test_a_reload_whose_contexts_cannot_be_forked_goes_on_later(start: Start) -> None:
    """In the new host, which they are for: not in the one that serves."""
    server = start()
    before = contexts_of(server)
    (server.directory / "no-fork").touch()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_record("no fork", 8)
    assert contexts_of(server) == before
    assert ask(server) in before
    (server.directory / "no-fork").unlink()
    server.wait_for_log("Reloaded: host")
    wait_for_contexts(server, 2, before)
    server.stop()


@pytest.mark.parametrize("how", ["Cannot allocate memory", "killed"])
def test_the_process_between_host_and_context_fails(start: Start, how: str) -> None:
    server = start()
    victim, other = sorted(contexts_of(server))
    if how == "killed":
        (server.directory / "killed-instead").touch()
    (server.directory / "no-second-fork").touch()
    os.kill(victim, signal.SIGKILL)
    server.wait_for_record("no second fork", 3)
    server.wait_for_log(rf"could not be started \([^)]*{how}")
    assert contexts_of(server) == {other}
    (server.directory / "no-second-fork").unlink()
    wait_for_contexts(server, 2, {victim})
    assert other in contexts_of(server)
    server.stop()


def test_a_host_that_is_killed_before_it_has_heard_of_its_context(start: Start) -> None:
    """Which then ends, too, and does not take itself for a host."""
    server = start()
    victim, other = sorted(contexts_of(server))
    (server.directory / "stop-host").touch()
    os.kill(victim, signal.SIGKILL)
    server.wait_for_record("host stopped")
    (server.directory / "stop-host").unlink()
    os.kill(host_of(server), signal.SIGKILL)
    server.wait_for_log("replaces the one that ended")
    serving.wait_until(lambda: other not in contexts_of(server), 60)
    serving.wait_until(lambda: len(serving.descendants(server.pid)) == 4, 60, "nobody is left")
    assert "nonsense" not in server.log
    server.stop()


def test_orphans_of_the_application_are_taken_leave_of(start: Start) -> None:
    """The supervisor adopts them as it does contexts. What the application starts may stay."""
    server = start()
    orphan = ask(server, "/orphan")
    assert orphan in serving.children(server.pid)
    (server.directory / "orphan-may-end").touch()
    serving.wait_until(lambda: orphan not in serving.children(server.pid), 60)
    assert len(contexts_of(server)) == 2
    server.stop()


def test_children_of_the_shell_that_became_the_server_are_taken_leave_of(
    tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    shell = ["sh", "-c", f'read line < {pipe} & exec "$@"', "sh"]
    server = serving.launch("rebels:app", tmp_path, contexts=2, place="processes", prefix=shell)
    started.append(server)
    server.wait_started()
    child, host, *contexts = serving.children(server.pid)  # Of different ages.
    assert serving.hosts(server.pid) == [host]
    pipe.write_text("end\n")
    serving.wait_until(lambda: serving.children(server.pid) == [host, *contexts], 60)
    assert child not in contexts
    assert len(contexts) == 2
    server.stop()


def test_contexts_that_cannot_be_forked_at_the_start_end_it(
    tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    (tmp_path / "no-fork").touch()
    server = serving.launch("rebels:app", tmp_path, contexts=2, place="processes")
    started.append(server)
    assert server.wait(60) == 3
    assert "Giving up: context" in server.log


def test_a_reload_without_descriptors_is_tried_again(start: Start) -> None:
    server = start()
    before = contexts_of(server)
    used = max(int(name) for name in os.listdir(f"/proc/{server.pid}/fd"))
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 1, hard))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("(?s)(cannot|Cannot) start a host process: Too many open files.*again")
    assert contexts_of(server) == before
    assert ask(server) in before
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    server.wait_for_log("Reloaded")
    wait_for_contexts(server, 2, before)
    server.stop()


def test_a_host_that_is_killed_again_while_it_loads_is_tried_again(start: Start) -> None:
    server = start()
    before = contexts_of(server)
    os.mkfifo(server.directory / "pipe")
    (server.directory / "hang").touch()
    os.kill(host_of(server), signal.SIGKILL)
    server.wait_for_record("hangs")
    (server.directory / "hang").unlink()
    os.kill(host_of(server), signal.SIGKILL)
    server.wait_for_log("could not be loaded: trying again")
    wait_for_contexts(server, 2, before)
    server.stop()


def logging_to(path: pathlib.Path) -> str:
    handler = {"class": "logging.FileHandler", "filename": str(path)}
    config = {
        "version": 1,
        "handlers": {"file": handler, "err": {"class": "logging.StreamHandler"}},
        "loggers": {"ppserver": {"handlers": ["file", "err"], "level": "INFO"}},
    }
    file = path.parent.parent / "logging.json"
    file.write_text(json.dumps(config))
    return str(file)


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_log_file_that_cannot_be_opened_anew(
    tmp_path: pathlib.Path, start: Start, contexts: int
) -> None:
    log = tmp_path / "logs" / "log"
    log.parent.mkdir()
    server = start("--log-config", logging_to(log), contexts=contexts)
    before = contexts_of(server)
    shutil.rmtree(log.parent)
    server.process.send_signal(signal.SIGUSR1)
    processes = contexts + 2  # Supervisor and host.
    serving.wait_until(lambda: server.log.count("cannot be opened anew") == processes, 60)
    assert contexts_of(server) == before
    assert ask(server) in before
    log.parent.mkdir()
    serving.wait_until(lambda: server.log.count("Log files reopened") == processes, 60)
    server.stop()


def test_what_is_forked_later_writes_to_the_new_log_file(
    tmp_path: pathlib.Path, start: Start
) -> None:
    log = tmp_path / "logs" / "log"
    log.parent.mkdir()
    server = start("--log-config", logging_to(log))
    log.rename(tmp_path / "old")
    server.process.send_signal(signal.SIGUSR1)
    serving.wait_until(lambda: server.log.count("Log files reopened") == 4, 60)
    before = contexts_of(server)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for_contexts(server, 2, before)
    for pid in contexts_of(server):
        serving.wait_until(lambda pid=pid: f"server process [{pid}]" in log.read_text(), 60)
    server.stop()


def test_garbage_ends_the_context_that_sends_it(start: Start) -> None:
    server = start()
    before = contexts_of(server)
    with contextlib.suppress(Exception):
        ask(server, "/garbage")
    match = server.wait_for_log(r"Context \d \[(\d+)\] sent nonsense")
    wait_for_contexts(server, 2, {int(match[1])})
    assert len(contexts_of(server) & before) == 1
    server.stop()


def test_descriptors_sent_to_the_supervisor_do_not_stay_there(start: Start) -> None:
    server = start()
    before = len(os.listdir(f"/proc/{server.pid}/fd"))
    with contextlib.suppress(Exception):
        ask(server, "/descriptors")
    server.wait_for_log("sent nonsense")
    assert ask(server)
    serving.wait_until(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= before, 60)
    server.stop()


def test_nobody_is_killed_whom_the_server_did_not_start(start: Start) -> None:
    """A context says that it is another process, which it wants to be ended with the contexts."""
    server = start("--timeout-graceful-shutdown", "0")
    before = contexts_of(server)
    with subprocess.Popen(["sleep", "600"]) as victim:
        try:
            os.kill(host_of(server), signal.SIGSTOP)
            with contextlib.suppress(Exception):
                ask(server, f"/claim/{victim.pid}")
            server.wait_for_log("sent nonsense")
            os.kill(host_of(server), signal.SIGCONT)
            serving.wait_until(lambda: len(contexts_of(server) - before) == 1, 60)
            server.stop()
            assert victim.poll() is None
        finally:
            victim.kill()


def test_nobody_reads_the_log(tmp_path: pathlib.Path) -> None:
    """A pipe that is full before the server starts: it starts, serves, and ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "ppserver", "lives:app", "--app-dir", str(serving.APPS)]
    with subprocess.Popen(
        [*command, "--cores", "2", "--contexts", "processes", "--uds", str(path)],
        env=serving._environment(tmp_path, {}),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
    ) as process:
        try:
            os.close(writer)

            def answer(target: bytes) -> bytes:
                with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(60)
                    client.connect(str(path))
                    client.sendall(b"GET " + target + b" HTTP/1.0\r\n\r\n")
                    return client.recv(4096)[9:12]
                return b""

            serving.wait_until(lambda: answer(b"/") == b"200", 60)
            assert [answer(b"/raise") for _ in range(20)] == [b"500"] * 20
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(reader)


APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d"]
"""


def test_a_working_directory_that_is_gone(
    tmp_path: pathlib.Path, started: list[serving.Server]
) -> None:
    """As a deployment removes it, with a symbolic link that leads to the next release."""
    current = tmp_path / "current"
    for number in (1, 2):
        release = tmp_path / str(number)
        release.mkdir()
        (release / "released.py").write_text(APP % number)
    current.symlink_to(tmp_path / "1")
    environ = serving._environment(tmp_path, {"PWD": str(current)})
    command = [sys.executable, "-m", "ppserver", "released:app", "--port", "0", "--cores", "2"]
    server = serving.Server(command, environ, current)
    started.append(server)
    server.wait_started()
    assert ask(server) == 1
    shutil.rmtree(tmp_path / "1")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reload failed")
    assert "ppserver: error: the working directory" in server.log
    assert ask(server) == 1
    current.unlink()
    current.symlink_to(tmp_path / "2")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reloaded")
    serving.wait_until(lambda: ask(server) == 2, 60)
    server.stop()
