"""A small, strict HTTP/1.1 client on a bare socket, for what a real client hides."""

from __future__ import annotations

import dataclasses
import socket
from types import TracebackType
from typing import Any

import serving


class ClosedError(Exception):
    """The server closed the connection in the middle of a response, or before one."""


@dataclasses.dataclass
class Response:
    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = dataclasses.field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None


class Raw:
    """A connection. Reading is strict: what is not well-formed fails the test."""

    def __init__(self, server: serving.Server, timeout: float = serving.MUST_SECONDS) -> None:
        self.socket = server.connect(timeout)
        self.buffer = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request; a body gets its Content-Length."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ClosedError(f"closed after {self.buffer!r}")
        self.buffer += data

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self.fill()
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.fill()
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def read_head(self) -> Response:
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, reason = lines[0].split(" ", 2)
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon, line
            assert name == name.strip(), line
            headers.append((name, value.strip(" ")))
        assert not any("\n" in value or "\r" in value for _, value in headers)
        return Response(version, int(status), reason, headers)

    def read_chunk(self) -> bytes:
        size = int(self.read_until(b"\r\n"), 16)
        data = self.read_exactly(size)
        assert self.read_exactly(2) == b"\r\n"
        return data

    def read_response(self, *, to_head: bool = False) -> Response:
        """One response; ``to_head`` when it answers HEAD."""
        response = self.read_head()
        if to_head or response.status < 200 or response.status in (204, 304):
            return response
        if response.get("transfer-encoding") is not None:
            assert response.get("transfer-encoding") == "chunked"
            assert response.get("content-length") is None
            while chunk := self.read_chunk():
                response.chunks.append(chunk)
            response.body = b"".join(response.chunks)
        elif (length := response.get("content-length")) is not None:
            response.body = self.read_exactly(int(length))
        else:
            response.body = self.read_to_end()
        return response

    def read_to_end(self) -> bytes:
        while True:
            try:
                self.fill()
            except ClosedError:
                found, self.buffer = self.buffer, b""
                return found

    def ask(self, target: str, *headers: str, **options: Any) -> Response:
        self.request(target, *headers, **options)
        return self.read_response(to_head=options.get("method") == "HEAD")

    def is_closed(self) -> bool:
        """Waits for the server to close; False when it sends something instead."""
        try:
            self.fill()
        except (ClosedError, ConnectionError):
            return True
        return False

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()
