"""Programs of the parallel API: how they start and end, by Python and by the command."""

from __future__ import annotations

import contextlib
import http.client
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
import serving
from protocolsite import Peer, Site, launch

from ppserver import _native

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
]

Start = Callable[..., serving.Server]


SMALL = """
import parallel

class Echo:
    def data_received(self, transport, data):
        if data == b"stop":
            transport.parent.shutdown()
        return data

parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Echo)
"""


@pytest.mark.parametrize("cores", ["1", "2"])
def test_python_program(run: Start, cores: str) -> None:
    server = run(SMALL + "parallel.run()", env={"PPSERVER_CORES": cores})
    server.wait_started()
    with Peer(server.port) as peer:
        assert peer.ask(b"hello") == b"hello"
    server.stop()


def test_interrupt_ends_it(run: Start) -> None:
    server = run(SMALL + "parallel.run(cores=2)")
    server.wait_started()
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0


@pytest.mark.parametrize("cores", [1, 2])
def test_shutdown_by_a_callback(run: Start, cores: int) -> None:
    server = run(SMALL + f"parallel.run(cores={cores})\nprint('after')")
    server.wait_started()
    with Peer(server.port) as peer:
        assert peer.ask(b"stop") == b"stop"
        assert peer.ended()
    assert server.wait() == 0
    assert "after" in server.log


def test_a_program_without_run(run: Start) -> None:
    server = run(SMALL, env={"PPSERVER_CORES": "1"})
    if sys.version_info >= (3, 12):
        assert server.wait() == 3
        assert "call parallel.run() at its end" in server.log
        return
    server.wait_started()
    with Peer(server.port) as peer:
        assert peer.ask(b"hello") == b"hello"
    server.stop()


def test_a_program_that_fails_after_register_does_not_serve(run: Start) -> None:
    server = run(SMALL + "raise SystemError('no')")
    assert server.wait() == 1
    assert "running on" not in server.log


def test_the_command_serves_a_program_without_run(command: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    server = command("small.py")
    server.wait_started()
    with Peer(server.port) as peer:
        assert peer.ask(b"hello") == b"hello"
    server.stop()


def test_reload(command: Start, tmp_path: pathlib.Path) -> None:
    """The program is run anew; one that listens elsewhere then needs a restart."""
    program = tmp_path / "small.py"
    program.write_text(SMALL)
    server = command("small.py", contexts=2)
    server.wait_started()
    program.write_text(SMALL.replace("return data", "return b'new'"))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reloaded: host")

    def answer() -> bytes:
        with Peer(server.port) as peer:
            return peer.ask(b"hello")

    serving.wait_until(lambda: answer() == b"new")  # The old ones end about now.
    program.write_text(SMALL + SMALL)
    # While the old ones end, the signal is ignored.
    serving.wait_until(lambda: len(serving.hosts(server.pid)) == 1)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("Reload failed: the program listens elsewhere now; restart it")
    assert answer() == b"new"
    server.stop()


def test_another_address(command: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    path = tmp_path / "socket"
    server = command("small.py", "--bind", f"unix:{path}", contexts=2)
    server.wait_for_log("running on unix:")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(serving.MUST_SECONDS)
        client.connect(str(path))
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    server.stop()


@pytest.mark.parametrize(
    ("program", "args", "problem"),
    [
        ("import parallel", [], "registers nothing"),
        ("import parallel\nraise SystemError('no')", [], "running .* failed: SystemError: no"),
        (SMALL + SMALL, ["--bind", "127.0.0.1:0"], "2 servers with addresses of their own"),
        (SMALL.replace("127.0.0.1", "no.such.host.invalid"), [], "cannot listen on"),
    ],
)
@pytest.mark.parametrize("contexts", [1, 2])
def test_what_cannot_be_served(
    command: Start,
    tmp_path: pathlib.Path,
    program: str,
    args: list[str],
    problem: str,
    contexts: int,
) -> None:
    (tmp_path / "bad.py").write_text(program)
    server = command("bad.py", *args, contexts=contexts)
    assert server.wait() in (2, 3)
    assert re.search(problem, server.log)
    assert "running on" not in server.log


def test_check_config(tmp_path: pathlib.Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ppserver",
            "small.py",
            "--app-dir",
            str(tmp_path),
            "--check-config",
        ],
        capture_output=True,
        text=True,
        cwd=serving.ROOT,
        env=serving._environment(tmp_path, {}),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "small.py is a" in done.stdout


@pytest.mark.parametrize("name", ["echo", "qotd", "daytime", "disconnect", "chargen"])
def test_examples(command: Start, name: str) -> None:
    args = ["--app-dir", str(serving.ROOT / "examples"), "--bind", "127.0.0.1:0"]
    server = command(f"{name}.py", *args, contexts=2)
    server.wait_started()
    with Peer(server.port) as peer:
        if name == "echo":
            assert peer.ask(b"hello") == b"hello"
        elif name == "chargen":
            assert peer.stream.readline().startswith(b"!\"#$%&'()")
            assert peer.stream.readline().startswith(b"\"#$%&'()*")
        else:
            said = peer.stream.readline()
            assert peer.ended()
            assert said.endswith(b"" if name == "disconnect" else b"\r\n")
            assert bool(said) == (name != "disconnect")
    server.stop()


def test_fast_example(command: Start) -> None:
    args = ["--app-dir", str(serving.ROOT / "examples"), "--bind", "127.0.0.1:0"]
    server = command("plaintext_fast.py", *args, contexts=2)
    server.wait_started()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=serving.MUST_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/plaintext")
        assert connection.getresponse().read() == b"Hello, World!"
    server.wait_for_log(r'"GET /plaintext HTTP/1.1" 200')
    server.stop()


def test_a_python_program_writes_access_lines(run: Start) -> None:
    program = """
import parallel

class Web:
    http11 = True

    def hello(self, transport, data, **rest):
        return b"hello"

parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Web)
parallel.run(cores=1)
"""
    server = run(program)
    server.wait_started()
    assert serving.get(f"{server.url}/hello").text == "hello"
    server.wait_for_log(r'127\.0\.0\.1:\d+ - "GET /hello HTTP/1\.1" 200')
    server.stop()


def test_access_log_by_python(command: Start) -> None:
    args = ["--app-dir", str(serving.ROOT / "examples"), "--bind", "127.0.0.1:0"]
    args += ["--log-format", "json"]
    server = command("plaintext_fast.py", *args)
    server.wait_for_log("running on")
    port = int(re.findall(r"running on http://127\.0\.0\.1:(\d+)", server.log)[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=serving.MUST_SECONDS)
    with contextlib.closing(connection):
        for path in ("/plaintext", "/absent"):
            connection.request("GET", path)
            connection.getresponse().read()
    server.wait_for_log(r"GET /plaintext[^\n]* 200")
    server.wait_for_log(r"GET /absent[^\n]* 404")
    server.stop()


DATA = """
import os
import parallel

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

before = resident()
data = {number: [number] for number in range(300_000)}
taken = resident() - before

class Sum:
    http11 = True
    def total(self, transport, body):
        return f"{sum(len(one) for one in data.values())} {taken}"

parallel.register(transport=parallel.server("127.0.0.1", 0), protocol=Sum)
parallel.run(cores=2)
"""


def test_what_a_program_loads_is_there_once(run: Start) -> None:
    """Also in the process that the user has started, which loads it and becomes the supervisor."""
    if _native.freeze_support()[0] != "on":
        pytest.skip("objects cannot be made immortal here")
    totals = []
    for program in (DATA.replace("300_000", "0"), DATA):
        server = run(program)
        server.wait_started()
        connection = http.client.HTTPConnection(
            "127.0.0.1", server.port, timeout=serving.MUST_SECONDS
        )
        with contextlib.closing(connection):
            for _ in range(8):
                connection.request("GET", "/total")
                answer = connection.getresponse().read().split()
                connection.close()
        totals.append(server.memory_bytes())
        server.stop()
    assert answer[0] == b"300000"
    assert totals[1] - totals[0] < 1.4 * int(answer[1])


def test_stopping_with_connections_that_say_nothing(
    started: list[serving.Server], tmp_path: pathlib.Path
) -> None:
    """They end after a moment, not after the grace that requests have."""
    server = launch(tmp_path, 2, "threads")
    started.append(server)
    server.wait_started()
    site = Site(server, 2)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(site.connect("echo")) for _ in range(10)]
        for peer in peers:
            assert peer.ask(b"here") == b"here"
        server.process.send_signal(signal.SIGTERM)
        for peer in peers:
            assert peer.ended()
    assert server.wait() == 0
    server.wait_for_record("closed close", 10)


def test_stopping_at_once(started: list[serving.Server], tmp_path: pathlib.Path) -> None:
    server = launch(tmp_path, 2, "threads", "--timeout-graceful-shutdown", "0")
    started.append(server)
    server.wait_started()
    site = Site(server, 2)
    with site.connect("chargen") as busy, site.connect("echo") as idle:
        assert busy.stream.readline() == b"0\n"
        assert idle.ask(b"here") == b"here"
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
