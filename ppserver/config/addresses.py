"""Addresses to listen on, as settings name them."""

from __future__ import annotations

import dataclasses

from ppserver.config.address import AddressSettings
from ppserver.errors import ConfigError

SOCKETS_MAX = 64  # that go to a context, in one message


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: exactly one of ``host`` (with ``port``), ``path`` and ``fd`` counts."""

    host: str = ""
    port: int = 0
    path: str | None = None
    fd: int | None = None
    scheme: str = "http"  # what is spoken there, for the line that announces it

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.fd is not None:
            return f"fd://{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` or ``fd://N``. ConfigError otherwise."""
    if text.startswith("unix:") and len(text) > 5:
        return Address(path=text[5:])
    if text.startswith("fd://") and text[5:].isdecimal():
        return Address(fd=int(text[5:]))
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        raise ConfigError(
            f"{text!r} is not an address",
            hint="HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N",
            setting="bind",
        )
    return Address(host=host[1:-1] if bracketed else host, port=int(port))


def addresses(config: AddressSettings) -> list[Address]:
    """Every address ``config`` asks to listen on. ConfigError for more than can be had."""
    if len(config.bind) > SOCKETS_MAX:
        raise too_many()
    if config.bind:
        return [parse_address(text) for text in config.bind]
    if config.uds is not None:
        return [Address(path=config.uds)]
    if config.fd is not None:
        return [Address(fd=config.fd)]
    return [Address(host=config.host, port=config.port)]


def too_many() -> ConfigError:
    """What there is to say of more sockets than a context can be given."""
    return ConfigError(
        f"more than {SOCKETS_MAX} sockets to listen on",
        hint="an address such as 0.0.0.0 or [::] stands for many",
        setting="bind",
    )
