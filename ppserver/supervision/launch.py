"""The way from settings to a server that runs.

One context may run in this process (:mod:`~ppserver.supervision.places.inline`). Otherwise contexts
run under a supervisor, whose host process loads the application once and keeps them: as forked
processes, threads or interpreters.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Container

from ppserver.app import patched
from ppserver.app.loader import recognise
from ppserver.config import Config
from ppserver.context import eventloop
from ppserver.machine import directory, gil, terminal, topology
from ppserver.supervision.plan import is_supervised


def run(config: Config, *, given: Container[str] | None = None) -> int:
    """Serve until told to stop, with as many contexts as ``config`` says; the exit code.

    ``given`` are the settings that a command line, its environment or file name; None for a program
    that calls this. The command may be started anew if the GIL is not as ``config`` wants it.
    Must be called in the main thread. Raises PPServerError if the server cannot start.
    """
    patched.refuse("this program")
    terminal.open_standard_descriptors()
    directory.remember()
    gil.enforce(config, may_execute=given is not None)
    config = recognise(config)
    if config.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        raise eventloop.missing()
    topology.check(config)
    supervised, why = is_supervised(config, given)
    # Only the one that is needed is loaded: a supervisor has no use for a server.
    if supervised:
        from ppserver.supervision import supervisor

        return supervisor.run(config, alone=given is not None)
    from ppserver.supervision.places import inline

    return inline.run(config, why=why)
