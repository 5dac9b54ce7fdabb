"""Processes that the application forks inherit nothing of the server's business."""

from __future__ import annotations

import pathlib
import signal

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="signal handlers of ppserver"),
]

APP = """
import multiprocessing, os, signal, time

def wait(pipe):
    pipe.send(1)
    while True:
        time.sleep(1000)

def app(environ, start_response):
    number = int(environ["PATH_INFO"].strip("/"))
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=wait, args=(theirs,))
    child.start()
    ours.recv()
    os.kill(child.pid, number)
    if number == signal.SIGTERM:
        os.kill(child.pid, number)
    if number == signal.SIGINT:
        # Python's own handler does not end a sleep that is about to begin.
        for _ in range(60):
            child.join(1)
            if child.exitcode is not None:
                break
            os.kill(child.pid, number)
    child.join(60)
    code = child.exitcode
    child.kill()
    start_response("200 OK", [])
    return [str(code).encode()]
"""


@pytest.mark.skipif(
    serving.FREE_THREADED, reason="a child forked off several threads may hang without a GIL"
)
@pytest.mark.parametrize(("contexts", "place"), [(1, "auto"), (2, "processes"), (2, "threads")])
def test_a_child_ends_by_a_signal(tmp_path: pathlib.Path, contexts: int, place: str) -> None:
    (tmp_path / "shop.py").write_text(APP)
    path = tmp_path / "socket"
    args = ["--app-dir", str(tmp_path), "--bind", "127.0.0.1:0", "--bind", f"unix:{path}"]
    options = {"contexts": contexts, "place": place, "args": args}
    with serving.running("shop:app", tmp_path, **options) as server:
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            assert serving.get(f"{server.url}/{int(number)}").text == str(-number)
        # By KeyboardInterrupt, which multiprocessing turns into 1, with a traceback.
        server.allow("KeyboardInterrupt")
        assert serving.get(f"{server.url}/{int(signal.SIGINT)}").text == "1"
        assert path.exists(), "the socket is the server's to remove"
        assert server.process.poll() is None
