"""What is added to responses, and which proxies are believed."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from ppserver.config.proxy import TrustedProxies
from ppserver.config.table import Group, setting
from ppserver.errors import ConfigError

_LOCAL_PROXIES = ("127.0.0.1", "::1")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HTTPSettings(Group):
    TITLE: ClassVar[str] = "HTTP"

    server_header: bool = setting(True, "send the Server header")
    date_header: bool = setting(True, "send the Date header")
    header: tuple[str, ...] = setting(
        (),
        "add this header to every response; may be given several times",
        "'NAME: VALUE'",
        separator="\n",
    )
    proxy_headers: bool = setting(
        False,
        "take client address and scheme from X-Forwarded-For and X-Forwarded-Proto "
        "of trusted proxies, and remove them from the requests of all other clients",
    )
    forwarded_allow_ips: tuple[str, ...] = setting(
        _LOCAL_PROXIES,
        "proxies to trust: addresses, networks, 'unix', or *; separated by commas",
        "LIST",
    )

    @property
    def response_headers(self) -> list[tuple[bytes, bytes]]:
        """``header`` as pairs of bytes."""
        return [_split_header(line) for line in self.header]

    def check_together(self) -> None:
        for line in self.header:
            _split_header(line)
        if self.proxy_headers or self.forwarded_allow_ips != _LOCAL_PROXIES:
            TrustedProxies(self.forwarded_allow_ips)


def _split_header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
        raise ConfigError(f"{line!r} is not of the form 'Name: value'", setting="header")
    if name.lower() in ("content-length", "transfer-encoding", "connection"):
        raise ConfigError(f"{name} is the server's own to send", setting="header")
    return name.encode("ascii"), value.encode("latin-1")
