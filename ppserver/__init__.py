"""ppserver: an ASGI and WSGI server whose core is C and runs without the interpreter.

``run(app, **settings)`` serves and blocks; :class:`Config` holds the settings, :class:`Server`
one context for use inside a program of your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ppserver._version import __version__
from ppserver.config import Config
from ppserver.errors import PPServerError

if TYPE_CHECKING:
    from ppserver.app.hooks import on_context_start, on_context_stop, on_start, on_stop
    from ppserver.context.server import Server
    from ppserver.freezing import FreezeReport, freeze, is_frozen

__all__ = [
    "Config",
    "FreezeReport",
    "PPServerError",
    "Server",
    "__version__",
    "freeze",
    "is_frozen",
    "on_context_start",
    "on_context_stop",
    "on_start",
    "on_stop",
    "run",
]

_LAZY = {
    "FreezeReport": "ppserver.freezing",
    "Server": "ppserver.context.server",
    "freeze": "ppserver.freezing",
    "is_frozen": "ppserver.freezing",
    "on_context_start": "ppserver.app.hooks",
    "on_context_stop": "ppserver.app.hooks",
    "on_start": "ppserver.app.hooks",
    "on_stop": "ppserver.app.hooks",
}


def run(app: Any, **settings: Any) -> None:
    """Serve ``app`` (an import string, or the application itself) until told to stop.

    Takes the settings of the command line with underscores. Returns after a clean end; raises
    PPServerError if a setting is wrong or the server cannot start, SystemExit with the exit
    code if it failed later. Call it in the main thread, under ``if __name__ == "__main__":``.
    """
    from ppserver.supervision import launch

    code = launch.run(Config(app, **settings))
    if code:
        raise SystemExit(code)


def __getattr__(name: str) -> Any:
    """Load what is asked for: a supervisor or a client of Config has no need of a server."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
