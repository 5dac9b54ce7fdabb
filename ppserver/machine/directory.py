"""The working directory, which may be removed while the server runs: a deployment does that; and
where temporary files go."""

from __future__ import annotations

import os

from ppserver.config import Config
from ppserver.errors import StartupError

_started_in = ""


def remember() -> None:
    """Note where the server is started, by the name it was given: that of a symbolic link, say."""
    global _started_in
    try:
        here = os.getcwd()
        named = os.environ.get("PWD", "")
        _started_in = named if os.path.isabs(named) and os.path.samefile(named, here) else here
    except OSError:
        pass  # Gone already, or the name is.


def come_back(config: Config) -> None:
    """If it is gone, go to what has its name now.

    StartupError if nothing has, and the application is to be imported from there.
    """
    try:
        os.getcwd()
        return
    except OSError:
        pass
    try:
        os.chdir(_started_in)
    except OSError:
        if not os.path.isabs(config.app_dir):
            raise StartupError(
                f"the working directory {_started_in or '(of the start)'} is gone",
                hint="start the server in one that stays, or name one: --app-dir /srv/app",
            ) from None


def for_spooling() -> str:
    """Where large request bodies wait; empty if nothing may be written anywhere.

    Not /tmp by preference: on many systems that is memory.
    """
    for path in (os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp"):
        if os.path.isabs(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    return ""
