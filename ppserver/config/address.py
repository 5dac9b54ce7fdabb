"""Where to listen."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ppserver.config.table import Group, number, setting
from ppserver.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddressSettings(Group):
    TITLE: ClassVar[str] = "Address"

    host: str = setting("127.0.0.1", "address to listen on", "HOST")
    port: int = setting(
        8000, "port to listen on; 0 takes a free one", "PORT", minimum=0, maximum=65535
    )
    uds: str | None = setting(None, "listen on a Unix socket at this path instead", "PATH")
    fd: int | None = setting(
        None, "listen on this inherited, bound descriptor instead", "FD", minimum=0, maximum=2**20
    )
    bind: tuple[str, ...] = setting(
        (),
        "listen here: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; "
        "may be given several times, and replaces the four above",
        "ADDRESS",
        flags=("-b",),
    )
    backlog: int = number(
        2048, 1, 65535, "connections the kernel may hold before they are accepted"
    )

    def check_together(self) -> None:
        given = [name for name in ("uds", "fd") if getattr(self, name) is not None]
        if self.bind:
            given.append("bind")
        if len(given) > 1:
            raise ConfigError(
                f"{' and '.join(given)} cannot be used together",
                hint="bind can be given several times: -b unix:PATH -b HOST:PORT",
            )
