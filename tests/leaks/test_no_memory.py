"""Every allocation of the interpreter fails once, while requests are served.

What a request loses by that is its own affair, and an interpreter that cannot go on may end; but
nothing may crash.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess

import pytest
import serving
from rawhttp import ClosedError, Raw

pytest.importorskip("_testcapi", reason="this interpreter cannot make allocations fail")

pytestmark = pytest.mark.slow

CONVERSATION = (
    b"GET /hello HTTP/1.1\r\nHost: a\r\nX-A: %d\r\n\r\n"
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"
    b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
    b"GET /raises HTTP/1.1\r\nHost: a\r\n\r\n"
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("task", "length"), [("worker", 1), ("plain", 1), ("worker", 30)])
def test_allocation_failures(tmp_path: pathlib.Path, task: str, length: int, more: bool) -> None:
    last, step = (400, 1) if more else (90, 15)
    server: serving.Server | None = None
    ended = 0
    try:
        for start in range(1, last, step):
            if server is None:
                server = serving.launch(
                    "leaky:app",
                    tmp_path,
                    loop="asyncio",
                    task=task,
                    args=["--no-access-log"],
                    env={"PYTHONFAULTHANDLER": "1"},
                )
                server.wait_started()
            with contextlib.suppress(OSError, ClosedError):
                with Raw(server, timeout=2) as raw:
                    raw.ask(f"/no-memory?start={start}&stop={start + length}")
                    raw.send(CONVERSATION % start)
                    raw.read_to_end()
            if not lives(server):
                code = server.process.poll()
                if code is None:  # asyncio has lost a wake-up and waits for ever.
                    server.kill()
                else:
                    assert code >= 0, f"ended by signal {-code} at {start}:\n{server.log}"
                server.wait()
                server, ended = None, ended + 1
    finally:
        if server is not None:
            server.kill()
            server.wait()
    print(f"ended {ended} times")


def lives(server: serving.Server) -> bool:
    """Whether it answers again, or at least neither ends nor hangs."""
    for _ in range(3):
        with contextlib.suppress(OSError, ClosedError, ValueError):
            with Raw(server, timeout=2) as raw:
                if raw.ask("/hello").body == b"hello":
                    return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(0.3)
            return False
    return False
