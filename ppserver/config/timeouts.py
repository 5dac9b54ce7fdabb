"""What takes too long."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ppserver.config.table import Group, seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeoutSettings(Group):
    TITLE: ClassVar[str] = "Timeouts"

    timeout_keep_alive: float = seconds(
        75.0, "close a connection that has had no request for this long; 0 is never"
    )
    timeout_request_header: float = seconds(
        10.0, "time for a request head to arrive whole, else 408; 0 is no limit"
    )
    timeout_body_idle: float = seconds(
        30.0, "longest pause within a request body, else 408; 0 is no limit"
    )
    timeout_write: float = seconds(
        30.0,
        "close the connection if the client reads nothing of the response for this long; "
        "0 is no limit",
    )
    disconnect_grace: float = seconds(
        1.0,
        "how long a client that ends its side before the response begins may still be "
        "waiting, before the application hears that it left; 0 tells it at once",
    )
    tcp_keep_alive: float = seconds(
        60.0,
        "close a connection whose client's machine has answered nothing for this long; "
        "0 leaves that to the system",
    )
    timeout_startup: float = seconds(
        0.0,
        "time for the functions of on_context_start, and as much again for the application's "
        "lifespan start-up; 0 is no limit",
    )
    timeout_reload: float = seconds(
        300.0,
        "time for a reload until the new contexts serve, else the old ones go on; 0 is no limit",
    )
    timeout_graceful_shutdown: float = seconds(
        30.0, "time for running requests to end after SIGTERM; 0 ends them at once"
    )
    shutdown_delay: float = seconds(
        0.0, "go on serving for this long after SIGTERM, while a load balancer turns away"
    )
