"""The command line with a real server behind it: what it prints, where it listens, how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="the command line of ppserver"),
]

Start = Callable[..., serving.Server]


@pytest.fixture
def start(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    def run(app: str = "lives:app", *, wait: bool = True, **options: Any) -> serving.Server:
        server = serving.launch(app, tmp_path, **options)
        started.append(server)
        if wait:
            server.wait_started()
        return server

    return run


def ask(server: serving.Server, request: str = "GET / HTTP/1.0\r\n\r\n") -> str:
    """Send a raw request and read until the server closes."""
    with server.connect() as client:
        client.sendall(request.encode("latin-1"))
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts).decode("latin-1")


def test_the_lines_people_wait_for_in_order(start: Start) -> None:
    server = start()
    server.stop()
    expected = [
        r"INFO:     ppserver \S+: ASGI, loop asyncio, \d+ cores? available",
        r"INFO:     contexts: 1, in this process",
        r"INFO:     data not frozen after load: one context shares it with nobody",
        rf"INFO:     Started server process \[{server.pid}\]",
        r"INFO:     Waiting for application startup\.",
        r"INFO:     Application startup complete\.",
        rf"INFO:     ppserver running on {server.url} \(Press CTRL\+C to quit\)",
        r"INFO:     Shutting down",
        r"INFO:     Waiting for application shutdown\.",
        r"INFO:     Application shutdown complete\.",
        rf"INFO:     Finished server process \[{server.pid}\]",
    ]
    lines = server.log.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(pattern, line), line


@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize("app", ["lives:app", "lives:wsgi"])
def test_access_line(start: Start, app: str, contexts: int) -> None:
    server = start(app, contexts=contexts)
    with server.connect() as client:
        host, port = client.getsockname()
        client.sendall(b"GET /p?q=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(65536)
        server.wait_for_log(
            rf'(?m)^INFO:     {host}:{port} - "GET /p\?q=1 HTTP/1\.1" 200$', seconds=5
        )
    server.stop()


def test_no_access_log(start: Start) -> None:
    server = start(args=["--no-access-log"])
    assert " 200 " in ask(server)
    server.stop()
    assert "GET" not in server.log


@pytest.mark.parametrize("app", ["lives:app", "lives:wsgi"])
def test_json_log(start: Start, app: str) -> None:
    server = start(app, args=["--log-format", "json"], wait=False)
    server.wait_started()
    ask(server, 'GET /a"b HTTP/1.0\r\n\r\n')
    server.wait_for_log('"status"')
    server.stop()
    entries = [json.loads(line) for line in server.log.splitlines()]
    access = next(entry for entry in entries if entry["logger"] == "ppserver.access")
    assert access["method"] == "GET"
    assert access["status"] == 200
    assert entries[0]["level"] == "info"


def test_log_config(start: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "log.json").write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"mine": {"format": "MINE %(message)s"}},
                "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine"}},
                "loggers": {"ppserver": {"handlers": ["out"], "level": "INFO"}},
            }
        )
    )
    server = start(args=["--log-config", "log.json"], wait=False)
    server.wait_started()
    ask(server)
    server.wait_for_log(r'MINE \S+:\d+ - "GET / HTTP/1.0" 200')
    server.stop()


def test_application_errors_are_logged_once_with_the_request(start: Start) -> None:
    server = start()
    assert " 500 " in ask(server, "GET /raise HTTP/1.0\r\n\r\n")
    server.stop()
    assert server.log.count("Exception in application on GET /raise") == 1
    assert server.log.count("Traceback") == 1


def test_response_headers(start: Start) -> None:
    server = start(args=["--header", "X-One: 1", "--header=X-Two: a, b", "--no-server-header"])
    head = ask(server).lower()
    assert "\r\nx-one: 1\r\n" in head
    assert "\r\nx-two: a, b\r\n" in head
    assert "\r\nserver:" not in head
    server.stop()


@pytest.mark.parametrize("app", ["lives:make()", "lives.py", "lives.py:app"])
def test_ways_to_name_the_application(start: Start, app: str) -> None:
    server = start(app)
    assert ask(server).endswith(f"\r\n\r\n{server.pid}")
    server.stop()


def test_settings_from_the_environment_and_a_file(start: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "c.toml").write_text('header = ["X-File: 1"]\naccess_log = false\n')
    server = start(
        args=["-c", "c.toml"], env={"PPSERVER_ACCESS_LOG": "true", "PPSERVER_PID": "pid"}
    )
    assert "x-file: 1" in ask(server).lower()
    assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
    server.stop()
    assert '"GET / HTTP/1.0" 200' in server.log
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("contexts", [1, 2])
def test_port_in_use(start: Start, contexts: int) -> None:
    first = start(args=["--pid", "pid"])
    second = start(contexts=contexts, wait=False, args=["--port", str(first.port), "--pid", "pid"])
    assert second.wait() == 3
    assert f"error: cannot listen on 127.0.0.1:{first.port}: address already in use" in second.log
    assert "Traceback" not in second.log
    assert " 200 " in ask(first)
    assert (first.directory / "pid").read_text() == f"{first.pid}\n"
    first.stop()


@pytest.mark.parametrize(
    ("app", "code", "message"),
    [
        ("nowhere:app", 3, "there is no module 'nowhere'"),
        ("livs:app", 3, "did you mean lives?"),
        ("lives:ap", 3, "has no attribute 'ap'"),
        ("lives:DIRECTORY", 3, "not an application but a"),
        ("lives:a:b", 2, "not of the form"),
    ],
)
@pytest.mark.parametrize("contexts", [1, 2])
def test_applications_that_are_none(
    start: Start, app: str, code: int, message: str, contexts: int
) -> None:
    server = start(app, contexts=contexts, wait=False)
    assert server.wait() == code
    assert message in server.log
    assert server.log.count("ppserver: error: ") == 1
    assert "Traceback" not in server.log


def test_missing_uvloop_is_told(start: Start) -> None:
    hide = "import sys; sys.modules['uvloop'] = None; sys.argv[0] = 'ppserver'; "
    code = hide + "from ppserver.cli import main; sys.exit(main(['lives:app', '--loop=uvloop']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "uvloop is not installed" in done.stderr


@pytest.mark.parametrize("app", ["lives:app", "lives:wsgi"])
def test_unix_socket(start: Start, tmp_path: pathlib.Path, app: str) -> None:
    path = tmp_path / "socket"
    server = start(app, args=["--uds", str(path), "--umask", "077"], wait=False)
    server.wait_for_log("running on unix:")
    assert path.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 200 " in client.recv(4096)
    server.stop()
    assert not path.exists()


def test_scope_of_a_unix_socket(start: Start, tmp_path: pathlib.Path) -> None:
    """The server is [path, None], also for the longest path; nobody is the client."""
    (tmp_path / "tells.py").write_text(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        text = repr((list(scope['server']), scope['client'])).encode()\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': text})\n"
    )
    before = os.getcwd()
    os.chdir(tmp_path)  # as the server: relative, since tmp_path itself takes too much of the room
    try:
        path = "s" * 107
        args = ["--uds", path, "--app-dir", str(tmp_path)]
        server = start("tells:app", args=args, wait=False)
        server.wait_for_log("running on unix:")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            for _ in range(2):
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).endswith(repr(([path, None], None)).encode())
        server.stop()
    finally:
        os.chdir(before)


@pytest.mark.parametrize("contexts", [1, 2])
def test_inherited_descriptor(tmp_path: pathlib.Path, contexts: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        env = {**os.environ, "TEST_APP_DIRECTORY": str(tmp_path)}
        command = [sys.executable, "-m", "ppserver", "lives:app", "--app-dir", str(serving.APPS)]
        command += ["--fd", str(listening.fileno()), "--cores", str(contexts)]
        process = subprocess.Popen(command, env=env, pass_fds=[listening.fileno()])
        try:
            with socket.create_connection(listening.getsockname(), serving.MUST_SECONDS) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert b" 200 " in client.recv(4096)
            process.send_signal(signal.SIGTERM)
            assert process.wait(serving.MUST_SECONDS) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def test_several_addresses(start: Start, tmp_path: pathlib.Path) -> None:
    server = start(
        contexts=2,
        args=["-b", "127.0.0.1:0", "-b", "127.0.0.2:0", "-b", f"unix:{tmp_path}/s"],
    )
    found = re.findall(r"running on http://([0-9.]+):(\d+)", server.log)
    server.wait_for_log("running on unix:")
    assert [host for host, _ in found] == ["127.0.0.1", "127.0.0.2"] or len(found) == 1
    assert " 200 " in ask(server)
    server.stop()


def test_check_config(tmp_path: pathlib.Path) -> None:
    def check(app: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ppserver", app, "--app-dir", str(serving.APPS)]
            + ["--check-config"],
            env={**os.environ, "TEST_APP_DIRECTORY": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    right = check("lives:app")
    assert right.returncode == 0
    assert right.stdout == "configuration is right; lives:app is an ASGI app\n"
    assert check("lives:nothing").returncode == 3


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU])
def test_signals_that_need_a_supervisor_are_ignored(start: Start, number: int) -> None:
    server = start()
    server.process.send_signal(number)
    server.wait_for_log("needs? a supervisor: --supervise always")
    assert " 200 " in ask(server)
    server.stop()


def test_log_level(start: Start) -> None:
    server = start(args=["--log-level", "warning"], wait=False)
    serving.wait_until(lambda: len(server.records()) == 2)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log == ""


def test_max_requests_in_this_process_ends_it(start: Start) -> None:
    server = start(args=["--limit-max-requests", "2"])
    for _ in range(2):
        assert " 200 " in ask(server)
    assert server.wait() == 0
    assert "Reached the limit of requests" in server.log


def test_run_from_a_script(tmp_path: pathlib.Path) -> None:
    (tmp_path / "serve.py").write_text(
        "import atexit, ppserver\n"
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 204, 'headers': []})\n"
        "    await send({'type': 'http.response.body'})\n"
        "if __name__ == '__main__':\n"
        "    atexit.register(print, 'once', flush=True)\n"
        "    ppserver.run(app, port=0, cores=2, lifespan='off', access_log=False)\n"
        "    print('returned', flush=True)\n"
    )
    server = serving.Server([sys.executable, "serve.py"], dict(os.environ), tmp_path)
    try:
        server.wait_started()
        assert " 204 " in ask(server)
    finally:
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert server.log.count("once") == 1
    assert server.log.count("returned") == 1


@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize("installed", [True, False])
def test_the_loop_by_itself(start: Start, installed: bool, contexts: int) -> None:
    """uvloop, where that is installed and the contexts can have it; the start-up line tells."""
    hide = serving.APPS / "without_uvloop"
    env = {} if installed else {"PYTHONPATH": f"{hide}:{os.environ.get('PYTHONPATH', '')}"}
    server = start("which_loop:app", loop="auto", contexts=contexts, env=env)
    usable = serving.PLACE != "interpreters" or contexts == 1
    expected = "uvloop" if installed and usable and serving.is_installed("uvloop") else "asyncio"
    assert ask(server).endswith(f"\r\n\r\n{expected}")
    server.stop()
    assert f"ASGI, loop {expected}, " in server.log
