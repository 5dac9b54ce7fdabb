"""Stub of the C extension."""

import selectors
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from typing import Any

from ppserver.types import ASGIApplication, WSGIApplication

BUILD: dict[str, Any]

def simd_level() -> str: ...

class Core:
    """One context's C loop: its connections, timers and counters."""

    def __init__(
        self,
        *,
        limit_request_line: int = ...,
        limit_request_fields: int = ...,
        limit_request_head: int = ...,
        limit_pipeline: int = ...,
        limit_concurrency: int = ...,
        max_request_body_size: int = ...,
        timeout_keep_alive: float = ...,
        timeout_request_header: float = ...,
        timeout_body_idle: float = ...,
        timeout_write: float = ...,
        server_header: bool = ...,
        date_header: bool = ...,
        headers: Sequence[tuple[bytes, bytes]] = ...,
        access_log_fd: int = ...,
        access_log_prefix: bytes = ...,
        access_log: Callable[[str, str, str, str, int], None] | None = ...,
    ) -> None: ...
    @property
    def epoll_fd(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    def add_listener(self, fd: int, *, exclusive: bool = ..., ssl: None = ...) -> None: ...
    def stop_listening(self) -> None: ...
    def selector(self) -> selectors.BaseSelector: ...
    def attach(self, loop: AbstractEventLoop) -> None: ...
    def detach(self) -> None: ...
    def serve_asgi(
        self,
        app: ASGIApplication,
        loop: AbstractEventLoop,
        *,
        state: dict[str, Any] | None,
        root_path: str = ...,
        task: str = ...,
        on_error: Callable[[BaseException, dict[str, Any]], None],
    ) -> None: ...
    def serve_wsgi(
        self,
        app: WSGIApplication,
        *,
        root_path: str = ...,
        threads: int = ...,
        multiprocess: bool = ...,
        on_error: Callable[[BaseException, dict[str, Any]], None],
    ) -> None: ...
    def run_wsgi(self) -> None: ...
    def drain(self) -> None: ...
    def drained(self) -> bool: ...
    def stop(self) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...
    def stats(self) -> dict[str, int]: ...
