"""What is logged, and in which form."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ppserver.config.table import Group, choice, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingSettings(Group):
    TITLE: ClassVar[str] = "Logging"

    log_level: str = setting(
        "info",
        "least level of the server's own messages",
        choices=("critical", "error", "warning", "info", "debug"),
    )
    log_config: str | None = setting(
        None, "configure Python's logging from a file (.toml, .json or fileConfig's format)", "FILE"
    )
    log_format: str = choice("text|json", "form of log lines on the console")
    access_log: bool = setting(True, "write a line per request")
