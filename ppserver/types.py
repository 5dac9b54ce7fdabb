"""Public types: what an application looks like to the server, and the numbers of a context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, TypeAlias, TypedDict
from wsgiref.types import WSGIApplication

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Interface: TypeAlias = Literal["asgi", "wsgi", "parallel"]

__all__ = [
    "ASGIApplication",
    "Interface",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "Stats",
    "WSGIApplication",
]


class Stats(TypedDict, total=False):
    """Numbers of one context: counters since its start, and gauges, which say what is now.

    Without another unit, a number counts what its name says. ``p50``, ``p99`` and ``max`` are
    quantiles, off by at most a quarter. There are none before the start and after the end.
    """

    accepted: int
    """Connections that the context has accepted."""
    closed: int
    """Connections that have ended here."""
    handed_in: int
    """Connections that other contexts handed over to this one."""
    handed_out: int
    """Connections that this one handed over to others."""
    accept_errors: int
    """Times that the kernel did not hand a connection over."""
    requests: int
    """Requests whose head arrived whole."""
    bytes_in: int
    """Bytes received."""
    bytes_out: int
    """Bytes sent."""
    turns: int
    """Turns of the core's loop."""
    batches: int
    """Turns in which requests were handed to the application."""
    tried: int
    """Times that a new connection was read at once, before the kernel said that it can be."""
    tried_well: int
    """Those of them that found a request."""
    upgrades: int
    """Requests that asked for another protocol and got an answer in this one."""
    log_lines_dropped: int
    """Lines of the access log that nobody read fast enough."""
    responses_none: int
    """Requests that ended without a response."""
    responses_1xx: int
    """Interim responses."""
    responses_2xx: int
    """Responses with a status of 200 to 299, and so on."""
    responses_3xx: int
    responses_4xx: int
    responses_5xx: int
    # How often each error happened; the log says of each what it is.
    errors_bad_request_line: int
    errors_bad_method: int
    errors_bad_target: int
    errors_bad_version: int
    errors_bad_header: int
    errors_bad_host: int
    errors_bad_content_length: int
    errors_bad_transfer_coding: int
    errors_unknown_transfer_coding: int
    errors_bad_expect: int
    errors_bad_chunk: int
    errors_bad_trailer: int
    errors_uri_too_long: int
    errors_head_too_large: int
    errors_too_many_fields: int
    errors_body_too_large: int
    errors_header_timeout: int
    errors_body_timeout: int
    errors_write_timeout: int
    errors_idle_timeout: int
    errors_disconnected: int
    errors_overloaded: int
    errors_no_memory: int
    errors_no_descriptors: int
    errors_system: int
    errors_app_bad_status: int
    errors_app_bad_header_name: int
    errors_app_bad_header_value: int
    errors_app_bad_reason: int
    errors_app_bad_content_length: int
    errors_app_body_too_long: int
    errors_app_body_too_short: int
    errors_app_failed: int
    connections: int
    """Connections that are open now."""
    in_flight: int
    """Requests that are with the application now."""
    suspended: int
    """Requests that were with the application when the loop last went to wait."""
    blocked: int
    """Not 0: other contexts hand nothing over; 1: out of descriptors, 2: no inbox."""
    promised: int
    """Connections handed over to this context that it has not taken yet."""
    busy_permille: int
    """Thousandths of the last 50 ms in which the loop did not wait."""
    stuck: int
    """1 while its event loop has not turned for long."""
    depth16: int
    """Sixteenths: events for the application in a turn, smoothed."""
    busy_us: int
    """Microseconds that the loop did not wait, in all."""
    busy_since_us: int
    """Microseconds, CLOCK_MONOTONIC: busy_us counts up to here; 0 while the loop waits."""
    heartbeat_us: int
    """Microseconds, CLOCK_MONOTONIC: when the last turn began or the last wait ended."""
    batch_count: int
    """Turns with events for the application; what follows is events in such a turn."""
    batch_sum: int
    batch_p50: int
    batch_p99: int
    batch_max: int
    busy_span_us_count: int
    """Times between two waits; what follows is microseconds of such a time."""
    busy_span_us_sum: int
    busy_span_us_p50: int
    busy_span_us_p99: int
    busy_span_us_max: int
