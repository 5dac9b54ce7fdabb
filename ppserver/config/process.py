"""The server's process: its number, its user, the modes of its files."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ppserver.config.table import Group, octal, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSettings(Group):
    TITLE: ClassVar[str] = "Process"

    pid: str | None = setting(None, "write the process number here", "FILE")
    user: str | None = setting(None, "user to become once sockets are open", "NAME|ID")
    group: str | None = setting(None, "group to become once sockets are open", "NAME|ID")
    umask: int | None = setting(
        None, "file mode creation mask, octal", "MASK", minimum=0, maximum=0o777, parse=octal
    )
