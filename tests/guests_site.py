"""Servers with interpreters for tests/apps/guests.py, and their clients."""

from __future__ import annotations

import functools
import http.client
import pathlib
from collections.abc import Callable
from typing import Any

import serving

Start = Callable[..., serving.Server]


def starter(directory: pathlib.Path, started: list[serving.Server]) -> Start:
    """``start(app, **options)``: a server with two interpreters, noted in ``started``."""

    def run(app: str = "guests:app", *, wait: bool = True, **options: Any) -> serving.Server:
        options.setdefault("contexts", 2)
        server = serving.launch(app, directory, place="interpreters", **options)
        started.append(server)
        if wait:
            server.wait_started()
        return server

    return run


class Contexts:
    """A connection that stays open to each context of a server."""

    def __init__(self, server: serving.Server, count: int = 2) -> None:
        self.by_name: dict[str, http.client.HTTPConnection] = {}
        serving.wait_until(lambda: self._find(server) == count, what=f"{count} contexts")

    def _find(self, server: serving.Server) -> int:
        """One more connection, kept if it is the first to its context; how many are kept."""
        connection = http.client.HTTPConnection(
            server.host, server.port, timeout=serving.MUST_SECONDS
        )
        name = self.get(connection, "/")
        if self.by_name.setdefault(name, connection) is not connection:
            connection.close()
        return len(self.by_name)

    def get(self, connection: http.client.HTTPConnection, path: str) -> str:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text

    def __enter__(self) -> dict[str, Callable[[str], str]]:
        return {
            name: functools.partial(self.get, connection)
            for name, connection in self.by_name.items()
        }

    def __exit__(self, *exc: object) -> None:
        for connection in self.by_name.values():
            connection.close()


def get(server: serving.Server, path: str = "/") -> str:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=serving.MUST_SECONDS)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()
