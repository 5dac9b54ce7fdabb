"""What is too much."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ppserver.config.table import Group, number, size
from ppserver.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitSettings(Group):
    TITLE: ClassVar[str] = "Limits"

    limit_concurrency: int = number(
        0,
        0,
        100_000_000,
        "requests with the application at a time, per context; more get 503; 0 is no limit",
    )
    limit_max_requests: int = number(
        0, 0, 2**53, "replace a context after about this many requests; 0 is never"
    )
    limit_max_requests_jitter: int = number(
        0, 0, 2**53, "add up to this many at random, so that contexts are not replaced together"
    )
    limit_request_line: int = size(
        8192, 64, 1 << 20, "bytes of a request line; a longer one gets 414"
    )
    limit_request_fields: int = number(100, 1, 256, "header fields of a request; more get 431")
    limit_request_head: int = size(
        32768, 128, 1 << 20, "bytes of a whole request head; a longer one gets 431"
    )
    limit_pipeline: int = number(64, 1, 10000, "pipelined requests read ahead on one connection")
    max_request_body_size: int = size(
        0, 0, 2**62, "bytes of a request body; a longer one gets 413; 0 is no limit"
    )
    spool_size: int = size(
        1 << 30,
        0,
        2**62,
        "WSGI: receive request bodies of more than 1 MiB, too, before the application is "
        "called, in a temporary file in $TMPDIR or /var/tmp of this size for each context; the "
        "application reads what has no room as it comes; 0 is none",
    )

    def check_together(self) -> None:
        if self.limit_request_line > self.limit_request_head:
            raise ConfigError(
                f"{self.limit_request_line} is larger than "
                f"limit_request_head ({self.limit_request_head})",
                setting="limit_request_line",
            )
