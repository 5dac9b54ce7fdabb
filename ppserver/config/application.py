"""The application: what to serve, and how to find it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ppserver.config.table import Group, choice, setting
from ppserver.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class _Positional(Group):
    """The one that is given by its position."""

    TITLE: ClassVar[str] = "Application"

    app: Any = setting(
        "",
        "application: module:attr, module:factory(), a module, or a .py file; "
        "from Python also the application itself",
        "APP",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplicationSettings(_Positional):
    app_dir: str = setting(".", "directory to import the application from", "DIR")
    factory: bool = setting(False, "APP is a function that makes the application")
    interface: str = choice(
        "auto|asgi|wsgi|parallel",
        "what kind of application it is; auto looks at its signature, and for a .py file "
        "at whether it imports parallel",
    )
    lifespan: str = choice(
        "auto|on|off", "ASGI lifespan: auto tries and goes on without, on insists, off does not ask"
    )
    root_path: str = setting("", "path the application is mounted under", "PATH")
    root_path_mode: str = choice(
        "auto|stripped|unstripped",
        "whether a proxy has taken root_path off a request's path; auto: not where the "
        "path begins with it",
    )
    env_file: str | None = setting(
        None,
        "read environment variables from a file of NAME=value lines; variables already set win",
        "FILE",
    )

    def check_together(self) -> None:
        if self.root_path and (not self.root_path.startswith("/") or self.root_path[-1] == "/"):
            raise ConfigError(
                f"{self.root_path!r} must begin with a slash and not end with one",
                setting="root_path",
            )
