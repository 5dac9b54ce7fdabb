"""Applications that tell about the interpreter they run in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mmap
import os
import pathlib
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

from support import ExpectedError, record

DIRECTORY = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])
ME = f"{id(sys.modules):x}"  # No two interpreters have this at one address.
COUNT = 0

if (DIRECTORY / "fail-import").exists():
    raise ExpectedError("import")
if (DIRECTORY / "fail-one-import").exists():  # The first to take it away.
    with contextlib.suppress(FileNotFoundError):
        (DIRECTORY / "fail-one-import").rename(DIRECTORY / "failed-one-import")
        raise ExpectedError("this import")


def about() -> str:
    """What a guest should find as the program that started it would."""
    return json.dumps(
        {
            "argv": sys.argv,
            "path": sys.path,
            "warnoptions": sys.warnoptions,
            "xoptions": sys._xoptions,
            "dev_mode": sys.flags.dev_mode,
            "utf8_mode": sys.flags.utf8_mode,
            "ignores": [f[2].__name__ for f in warnings.filters if f[0] == "ignore"],
            "main_thread": threading.current_thread() is threading.main_thread(),
        }
    )


def meet(mine: int) -> str:
    """Wait for the other context, in a loop that never gives a GIL away."""
    before = sys.getswitchinterval()
    with open(DIRECTORY / "meeting", "r+b") as file, mmap.mmap(file.fileno(), 2) as shared:
        sys.setswitchinterval(1000.0)
        try:
            shared[mine] = 1
            deadline = time.monotonic() + 10
            while not shared[1 - mine]:
                if time.monotonic() > deadline:
                    return "nobody came"
        finally:
            sys.setswitchinterval(before)
    return "met"


def answer(path: str) -> str:
    global COUNT
    COUNT += 1
    if path == "/about":
        return about()
    if path == "/count":
        return str(COUNT)
    if path.startswith("/meet/"):
        return meet(int(path.rpartition("/")[2]))
    if path == "/fork":
        try:
            os.fork()
        except RuntimeError as error:
            return str(error)
    if path == "/subprocess":
        done = subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True)
        return done.stdout.decode().strip()
    if path == "/print":
        print(f"printed by {ME}")
    if path == "/log":
        logging.getLogger("ppserver.error").warning("logged by %s", ME)
    if path == "/abort":
        os.abort()
    if path.startswith("/daemon"):
        started = threading.Event()
        what = {"/daemon": forever, "/daemon/computes": compute, "/daemon/sleeps": doze}[path]
        threading.Thread(target=lambda: (started.set(), what()), daemon=True).start()
        started.wait()
    return ME


def forever() -> None:
    threading.Event().wait()


def compute() -> None:
    while True:
        pass


def doze() -> None:
    while True:
        time.sleep(0.001)


def prepare() -> None:
    """For the setting on_start."""
    record(f"prepared {ME}")


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    record(f"startup {ME}")
    if (DIRECTORY / "refuse-in-lifespan").exists():
        import _testsinglephase  # noqa: F401
    await send({"type": "lifespan.startup.complete"})
    await receive()
    record(f"shutdown {ME}")
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    if path == "/hold":
        record("holding")
        while not (DIRECTORY / "go").exists():  # noqa: ASYNC110 (a file cannot be awaited)
            await asyncio.sleep(0.01)
    body = answer(path).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/hold":
        record("holding")
        while not (DIRECTORY / "go").exists():
            time.sleep(0.01)
    elif path == "/multiprocess":
        start_response("200 OK", [])
        return [repr(environ["wsgi.multiprocess"]).encode()]
    start_response("200 OK", [])
    return [answer(path).encode()]


def make() -> Any:
    """A factory; each interpreter calls it."""
    record(f"made {ME}")
    return app
