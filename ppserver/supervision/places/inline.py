"""One context in this very process: no supervisor, no fork."""

from __future__ import annotations

from ppserver import freezing
from ppserver.app import hooks
from ppserver.app.loader import load
from ppserver.config import Config
from ppserver.context import eventloop, exits
from ppserver.context.listeners import Listeners
from ppserver.context.server import Server
from ppserver.context.wiring import Wiring
from ppserver.machine import directory, topology
from ppserver.observe import logs
from ppserver.shared import sealed
from ppserver.supervision import pidfile, plan, privileges


def run(config: Config, why: str = "") -> int:
    """Serve in this process; the exit code. Raises PPServerError if it cannot start."""
    logs.configure(config)
    privileges.set_umask(config)
    identity = privileges.identity(config)
    with Listeners(config) as listeners, pidfile.held(config):
        listeners.give_files(*identity)
        privileges.drop(config)
        topology.pin(config, 0)
        directory.come_back(config)
        application = load(config)
        hooks.run(config)
        if (program := application.program) is not None:
            listeners.open(application.addresses)
            program.before_contexts(None, forked=False)
        config = eventloop.settle(config, application.interface)
        plan.banner(config, "", application.interface, config.loop, why)
        wiring = Wiring(application=application, listeners=listeners, owns_process=True)
        server = Server(config, _wiring=wiring)
        try:
            with sealed(), freezing.alone():
                code = server.run()
        finally:
            exits.unbound()  # Who called this may have a program to go on with.
            stopped = hooks.stop(config)
        return code if stopped else code or 1
