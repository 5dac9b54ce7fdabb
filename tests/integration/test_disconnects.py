"""The client's leaving ends the work, in every framework, in whatever way it leaves.

After clients that vanished no generator, dependency, task or connection is left, and nothing is
logged: `Server.check_log` fails on any traceback.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import serving
from rawhttp import Raw

FRAMEWORKS = ["starlette", "stacked", "sse", "fastapi", "litestar", "quart", "django"]
TCP_REPAIR = 19
HOW = ["reset", "half", "close"]

Serve = Callable[..., serving.Server]


@pytest.fixture(scope="module")
def server(serve: Serve, loop: str) -> serving.Server:
    serving.require("starlette", "fastapi", "django", "litestar", "quart", "sse_starlette")
    args = ["--disconnect-grace", "0.2", "--tcp-keep-alive", "2"]
    args += ["--timeout-write", "1"]  # for those that do not read
    return serve("leaving:app", interface="asgi", loop=loop, args=args)


def state(server: serving.Server) -> dict[str, Any]:
    found: dict[str, Any] = ast.literal_eval(serving.get(f"{server.url}/state").text)
    return found


def nothing_left(server: serving.Server, before: dict[str, Any]) -> bool:
    now = state(server)
    return (
        now["left"] == now["entered"]
        and now["tasks"] <= before["tasks"]
        and now["sockets"] <= before["sockets"]
    )


def leave(raw: Raw, how: str) -> None:
    if how == "reset":
        raw.reset()
    elif how == "half":
        raw.socket.shutdown(socket.SHUT_WR)  # and stays
    else:
        raw.socket.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_vanished_clients_leave_nothing(server: serving.Server, framework: str, more: bool) -> None:
    """In the long form 300 clients in each way, 50 at a time."""
    kinds = ["before", "after", "busy", *(["view"] if framework in ("quart", "django") else [])]
    ways = list(itertools.product(HOW, ("at once", "later"), kinds))
    before = state(server)
    for _ in range(6 if more else 1):
        vanish(server, framework, ways * (50 if more else 1))
        # 1,200 clients at a time are much work for a machine that does other things, too.
        serving.wait_until(lambda: nothing_left(server, before), 300 if more else 60, framework)
    seen = sum(when == "later" and kind in ("after", "busy") for _, when, kind in ways)
    entered = state(server)["entered"][framework] - before["entered"].get(framework, 0)
    assert entered >= seen * (300 if more else 1)


def vanish(server: serving.Server, framework: str, ways: list[tuple[str, str, str]]) -> None:
    with contextlib.ExitStack() as stack:
        peers = []
        for how, when, kind in ways:
            raw = stack.enter_context(Raw(server))
            raw.request(f"/{framework}/{kind}")
            if when == "later" and kind in ("after", "busy"):
                raw.read_head()
                raw.read_chunk()
            if when == "later":
                peers.append((raw, how))
            else:
                leave(raw, how)
        for raw, how in peers:
            leave(raw, how)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_half_closing_client_gets_its_answer(server: serving.Server, framework: str) -> None:
    """As `printf … | nc -N`."""
    with Raw(server) as raw:
        raw.request(f"/{framework}/quick")
        raw.socket.shutdown(socket.SHUT_WR)
        response = raw.read_response()
        assert (response.status, response.body) == (200, b"quick")
        assert raw.read_to_end() == b""


def test_accepted_sockets_have_keep_alive(server: serving.Server) -> None:
    """Inherited from the listening socket; the kernel shows its timer."""
    with Raw(server) as raw:
        raw.ask("/starlette/quick")
        ends = [f":{port:04X}" for port in (server.port, raw.socket.getsockname()[1])]
        lines = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()]
        timers = [f[5] for f in lines if [f[1][-5:], f[2][-5:]] == ends]
        assert [timer.partition(":")[0] for timer in timers] == ["02"]


@pytest.mark.slow
def test_silent_client_is_noticed(server: serving.Server) -> None:
    """Its socket vanishes without a word, which needs the right to repair sockets."""
    before = state(server)
    with Raw(server) as raw:
        raw.request("/starlette/after")
        raw.read_head()
        raw.read_chunk()
        try:
            raw.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            pytest.skip("may not repair sockets")
    serving.wait_until(lambda: nothing_left(server, before), 60)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: the server's, 10.0.0.1, and a client's."""
    here, there = (f"pp{os.getpid()}-{name}" for name in ("server", "client"))
    commands = [
        f"netns add {here}",
        f"netns add {there}",
        f"-n {here} link add cable type veth peer name cable netns {there}",
        f"-n {here} addr add 10.0.0.1/24 dev cable",
        f"-n {there} addr add 10.0.0.2/24 dev cable",
        f"-n {here} link set cable up",
        f"-n {there} link set cable up",
    ]
    try:
        for command in commands:
            try:
                ip(command)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"no network namespace can be made here: {error}")
        yield here, there
    finally:
        for name in (here, there):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                ip(f"netns del {name}")


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


SILENT = """
import socket, sys
peers = []
for path in sys.argv[2:]:
    peers.append(socket.create_connection(("10.0.0.1", int(sys.argv[1])), 60))
    peers[-1].sendall(b"GET %s HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n" % path.encode())
    if path.rpartition("/")[2] in ("after", "ticking"):
        peers[-1].recv(100)
print("here", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_machines_that_fall_silent_are_noticed(
    tmp_path: pathlib.Path, loop: str, more: bool
) -> None:
    """Their cable is pulled, so that nothing answers probes or acknowledges what is sent."""
    if not more:
        pytest.skip("runs in make test-all")
    serving.require("starlette", "fastapi", "django", "litestar", "quart", "sse_starlette")
    args = ["--bind", "10.0.0.1:0", "--bind", f"unix:{tmp_path}/socket"]
    args += ["--tcp-keep-alive", "2", "--timeout-write", "1", "--disconnect-grace", "0.2"]
    kinds = ["before", "after", "busy", "ticking"]
    paths = [f"/{framework}/{kind}" for framework in FRAMEWORKS for kind in kinds]
    paths = [*paths, "/quart/view", "/django/view"] * 10
    with contextlib.ExitStack() as stack:
        here, there = stack.enter_context(two_machines())
        server = stack.enter_context(
            serving.stopping(
                serving.launch(
                    "leaving:app",
                    tmp_path,
                    loop=loop,
                    args=args,
                    prefix=["ip", "netns", "exec", here],
                )
            )
        )
        server.wait_started()
        local = httpx.HTTPTransport(uds=f"{tmp_path}/socket")
        control = stack.enter_context(httpx.Client(transport=local, timeout=60))

        def now() -> dict[str, Any]:
            found: dict[str, Any] = ast.literal_eval(control.get("http://server/state").text)
            return found

        before = now()
        client = stack.enter_context(
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", there, sys.executable),
                    *("-c", SILENT, str(server.port), *paths),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(client.kill)
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n"
        wanted = {"fastapi-dependency": 40, **dict.fromkeys(FRAMEWORKS, 40)}
        wanted |= {"quart": 50, "django": 50}
        serving.wait_until(lambda: now()["entered"] == wanted, 60)
        assert now()["left"] != wanted, "but those who do not read may have been ended"
        ip(f"-n {there} link set cable down")
        serving.wait_until(
            lambda: (
                (state := now())["left"] == state["entered"]
                and state["tasks"] <= before["tasks"]
                and state["sockets"] <= before["sockets"]
            ),
            60,
        )


def test_monitoring_hears_of_no_error(serve: Serve, loop: str) -> None:
    """No event, no failed span, no call of an exception handler, no lost thread of a2wsgi."""
    serving.require("litestar", "fastapi", "sentry_sdk", "a2wsgi")
    args = ["--disconnect-grace", "0.2"]
    server = serve("monitored:app", interface="asgi", loop=loop, args=args)
    before = state(server)
    with contextlib.ExitStack() as stack:
        for framework, how in itertools.product([*FRAMEWORKS, "a2wsgi"], ["reset", "close"]):
            for kind in ("before", "after", "busy"):
                raw = stack.enter_context(Raw(server))
                raw.request(f"/{framework}/{kind}")
                if kind != "before":
                    raw.read_head()
                    raw.read_chunk()
                leave(raw, how)
        serving.wait_until(lambda: nothing_left(server, before), 60)
    for _ in range(2):
        assert serving.get(f"{server.url}/a2wsgi/quick").text == "quick"
    server.wait_for_record("transaction /{kind}: 0 failed")
    assert [line for line in server.records() if not line.endswith(" 0 failed")] == []
    assert serving.get(f"{server.url}/a2wsgi/raises").status_code == 500
    server.wait_for_record("event: ExpectedError: in WSGI, expected by the test")
