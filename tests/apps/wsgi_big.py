"""WSGI: bodies too large for memory, both ways; calls that wait for a file, or compute."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PIECE = bytes(range(256)) * 256


def pieces(size: int) -> Iterator[bytes]:
    while size > 0:
        yield PIECE[:size]
        size -= len(PIECE)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    path = environ["PATH_INFO"]
    if path == "/down":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return pieces(int(environ["QUERY_STRING"]))
    if path == "/up":
        size, digest = 0, hashlib.sha256()
        while data := environ["wsgi.input"].read(100_000):
            size += len(data)
            digest.update(data)
        start_response("200 OK", [])
        return [f"{size} {digest.hexdigest()}".encode()]
    if path == "/hold":
        directory = Path(os.environ["TEST_APP_DIRECTORY"])
        (directory / "held").touch()
        while not (directory / "go").exists():
            time.sleep(0.01)
    if path == "/compute":
        until = time.thread_time() + float(environ["QUERY_STRING"])
        while time.thread_time() < until:
            sum(range(1000))
        start_response("200 OK", [])
        return [threading.current_thread().name.encode()]
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
