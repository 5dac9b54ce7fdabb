"""A WSGI application that works against the host and the supervisor it runs under."""

from __future__ import annotations

import errno
import gc
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

from support import record

DIRECTORY = pathlib.Path(os.environ["TEST_APP_DIRECTORY"])
record(f"import {os.getpid()}")
HOST = os.getpid()
fork = os.fork


def fork_or_not() -> int:
    if (DIRECTORY / "no-fork").exists():
        record("no fork")
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if os.getpid() != HOST and (DIRECTORY / "no-second-fork").exists():
        record("no second fork")
        if (DIRECTORY / "killed-instead").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    pid = fork()
    if pid and os.getpid() != HOST and (DIRECTORY / "stop-host").exists():
        os.kill(HOST, signal.SIGSTOP)
        record("host stopped")
    return pid


os.fork = fork_or_not
while (DIRECTORY / "hang").exists():
    record("hangs")
    os.read(os.open(DIRECTORY / "pipe", os.O_RDONLY), 1)


def channel() -> socket.socket:
    """The host's end of the channel, which every context inherits."""
    from ppserver.supervision.places.base import Premises

    gc.unfreeze()
    found: socket.socket = next(
        one.channel.socket for one in gc.get_objects() if isinstance(one, Premises)
    )
    return found


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    command, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    if command == "garbage":
        channel().send(b"{" * 1000)
    elif command == "empty":
        channel().send(b"")
    elif command == "descriptors":
        for _ in range(50):
            socket.send_fds(channel(), [b'{"kind": "stranger"}'], [0, 1, 2])
    elif command == "claim":  # to be another context, that of process `argument`
        key = int(argument)
        for message in (
            {"kind": "ended", "key": os.getpid(), "code": 0},
            {"kind": "started", "slot": 0, "seat": None, "key": key},
            {"kind": "ready", "slot": 0, "seat": None, "key": key},
        ):
            channel().send(json.dumps(message).encode())
    elif command == "write":
        for fd in (1, 2):
            os.write(fd, b"application writes\n" * 100)
        for stream in (sys.stdout, sys.stderr, environ["wsgi.errors"]):
            stream.write("application writes\n")
            stream.flush()
    elif command == "orphan":
        return answer(start_response, orphan())
    return answer(start_response, os.getpid())


def orphan() -> int:
    """A grandchild, which has lost its parent already."""
    waiting = f"(while [ ! -e '{DIRECTORY}/orphan-may-end' ]; do sleep 0.05; done) >&2 & echo $!"
    return int(subprocess.run(["sh", "-c", waiting], stdout=subprocess.PIPE, check=True).stdout)


def answer(start_response: Any, number: int) -> list[bytes]:
    body = str(number).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
