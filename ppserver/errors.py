"""The exceptions ppserver raises, one root, broad to narrow.

Every one of that root carries one clear line (``str(error)``), an optional ``hint`` on what to do
about it, and the ``exit_code`` the command line ends with.

``ClientDisconnected`` is none of them but an OSError: applications meet it where they send to, or
read from, a client that has left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ppserver._native import ClientDisconnected

__all__ = [
    "BindError",
    "ClientDisconnected",
    "ConfigError",
    "LifespanError",
    "LoadError",
    "PPServerError",
    "StartupError",
]


class PPServerError(Exception):
    """Root of all errors raised by ppserver."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # in the traceback of a program that does not catch it


class ConfigError(PPServerError):
    """A setting or an argument is wrong; nothing was started.

    ``setting`` is the name of the setting that it is about, or ``""``; the line begins with it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", setting: str = "") -> None:
        super().__init__(f"{setting}: {message}" if setting else message, hint=hint)
        self.setting = setting
        self._message = message

    def said_by(self, source: str) -> ConfigError:
        """The same error, which begins with where the value came from: a flag, a variable, a key
        of a file."""
        return ConfigError(f"{source}: {self._message}", hint=self.hint)


class StartupError(PPServerError):
    """The server could not start: import, bind or lifespan."""

    exit_code = 3


class LoadError(StartupError):
    """The application could not be found, imported or recognised.

    ``trace`` is the formatted traceback from the application's first frame on, or ``""``.
    """

    def __init__(self, message: str, *, hint: str = "", trace: str = "") -> None:
        super().__init__(message, hint=hint)
        self.trace = trace


class BindError(StartupError):
    """An address could not be listened on."""


class LifespanError(StartupError):
    """The application said (or showed) that its start-up failed."""


def report(error: PPServerError, stream: TextIO) -> None:
    """One clear line, after the application's traceback if there is one, and a hint."""
    if isinstance(error, LoadError) and error.trace:
        print(error.trace, file=stream, end="")
    print(f"ppserver: error: {error}", file=stream)
    if error.hint:
        print(f"hint: {error.hint}", file=stream)
    stream.flush()


def __getattr__(name: str) -> Any:
    """What the extension has is loaded when it is asked for: a command without one says so."""
    if name == "ClientDisconnected":
        from ppserver._native import ClientDisconnected

        return ClientDisconnected
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
