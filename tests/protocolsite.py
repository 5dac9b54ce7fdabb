"""A program of the parallel API that is served, and peers of its protocols: raw connections."""

from __future__ import annotations

import contextlib
import http.client
import pathlib
import re
import socket
from collections.abc import Iterator

import serving

PROGRAM = "protocols.py"
# As the program registers them.
ORDER = (
    "echo",
    "lines",
    "chargen",
    "cheating",
    "failing",
    "handling",
    "sent",
    "files",
    "limited",
    "http",
    "one",
    "quiet",
)


class Site:
    """The running program, and a port for each of its protocols."""

    def __init__(self, server: serving.Server, contexts: int) -> None:
        self.server = server
        self.contexts = contexts
        server.wait_for_log("(?s)" + r"running on \w+://.*" * len(ORDER))
        ports = re.findall(r"running on \w+://127\.0\.0\.1:(\d+) ", server.log)
        self.ports = dict(zip(ORDER, map(int, ports), strict=True))

    def connect(self, name: str) -> Peer:
        return Peer(self.ports[name])

    @contextlib.contextmanager
    def http(self, name: str = "http") -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports[name], timeout=serving.MUST_SECONDS
        )
        with contextlib.closing(connection):
            yield connection


class Peer:
    """A raw connection to a protocol."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), serving.MUST_SECONDS)
        self.stream = self.socket.makefile("rb")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes) -> bytes:
        """What comes at once for what is said."""
        self.say(data)
        return self.socket.recv(65536)

    def read(self, count: int) -> bytes:
        return self.stream.read(count)

    def ended(self) -> bool:
        return self.stream.read(1) == b""


def launch(directory: pathlib.Path, contexts: int, place: str, *args: str) -> serving.Server:
    return serving.launch(
        PROGRAM, directory, contexts=contexts, place=place, args=["--no-access-log", *args]
    )
