"""The client's leaving ends the work, in every framework, in whatever way it leaves.

After clients that vanished no generator, dependency, task or connection is left, and nothing is
logged: `Server.check_log` fails on any traceback.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import pathlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
import serving
from rawhttp import Raw

FRAMEWORKS = ["starlette", "stacked", "sse", "fastapi", "litestar", "quart", "django"]
TCP_REPAIR = 19
HOW = ["reset", "half", "close"]

Serve = Callable[..., serving.Server]


@pytest.fixture(scope="module")
def server(serve: Serve) -> serving.Server:
    serving.require("starlette", "fastapi", "django", "litestar", "quart", "sse_starlette")
    args = ["--disconnect-grace", "0.2", "--tcp-keep-alive", "2"]
    args += ["--timeout-write", "1"]  # for those that do not read
    return serve("leaving:app", interface="asgi", args=args)


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


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_vanished_clients_leave_nothing(server: serving.Server, framework: str, more: bool) -> None:
    count = 50 if more else 1
    before = state(server)
    kinds = ["before", "after", "busy", *(["view"] if framework in ("quart", "django") else [])]
    with contextlib.ExitStack() as stack:
        peers = []
        for how, when, kind in list(itertools.product(HOW, ("at once", "later"), kinds)) * count:
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
        serving.wait_until(lambda: nothing_left(server, before), 60, framework)


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


def test_monitoring_hears_of_no_error(serve: Serve) -> None:
    """No event, no failed span, no call of an exception handler, no lost thread of a2wsgi."""
    serving.require("litestar", "fastapi", "sentry_sdk", "a2wsgi")
    server = serve("monitored:app", interface="asgi", args=["--disconnect-grace", "0.2"])
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
