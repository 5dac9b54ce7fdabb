"""A program's course: it makes transports, registers protocols, and serves."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Any

from parallel import background, work
from parallel.registry import ClientTransport, Registry, RootTransport, ServerTransport, registry

if TYPE_CHECKING:
    from ppserver.app.programs import Program

__all__ = ["client", "register", "run", "run_once", "server"]

_MAY_START_AT_EXIT = sys.version_info < (3, 12)
_PASS_SECONDS = 0.05


class _Course:
    """How far the program is: whether run() was called, or somebody else will serve."""

    ran = False
    loaded_by_ppserver = False
    background: background.Background | None = None  # of run_once()


def server(host: str = "", port: int = 0) -> ServerTransport:
    """A transport that listens on ``host`` and ``port`` once it has a protocol.

    ``""`` and ``"0.0.0.0"`` mean all interfaces, port 0 one that the system chooses. Raises
    TypeError or ValueError.
    """
    return ServerTransport(host, port)


def client(host: str, port: int) -> ClientTransport:
    """A transport that connects to ``host`` and ``port`` once it has a protocol and the program
    runs: one connection, of the first context.

    If it cannot, that is the protocol's ``connection_error(transport, exc)``. A program that has
    no servers ends with the last connection of its clients. Raises TypeError or ValueError.
    """
    return ClientTransport(host, port)


def register(*, transport: RootTransport, protocol: Any) -> None:
    """Serve ``transport`` with ``protocol``: a class, of which each connection gets an instance,
    or one instance for all connections.

    It begins with ``run()``, or when the program comes to its end. Raises TypeError or ValueError
    if a transport has a protocol already or a protocol's attributes contradict each other.
    """
    if not registry.transports:
        atexit.register(_serve_at_exit)
    registry.add(transport, protocol)


def run(*, cores: int | str | None = None, **settings: Any) -> None:
    """Serve what is registered until told to stop: SIGINT and SIGTERM end it gracefully. Without
    servers, until clients' connections, and what was submitted, have ended.

    ``cores``: how many contexts, ``"all"`` for one on each core, which is the default unless
    ``PPSERVER_CORES`` is set; without servers one. ``settings`` are those of ``ppserver``'s command
    line, with underscores; its ``PPSERVER_*`` variables count, too. Under ``ppserver program.py``
    it does nothing: then the command serves.

    Raises RuntimeError if nothing is registered or submitted, ``ppserver.PPServerError`` if a
    setting is wrong or the server cannot start, SystemExit with the exit code if it failed later.
    """
    if _Course.loaded_by_ppserver:
        return
    _Course.ran = True
    if not registry.transports:
        if not work.pending():
            raise RuntimeError("nothing is registered: parallel.register() comes first")
        work.run_until_idle()
        return
    import ppserver
    from ppserver.config import own_names
    from ppserver.config.sources import from_environment

    values: dict[str, Any] = {"cores": "all" if registry.servers else 1}
    values.update(from_environment(os.environ))
    values.update(own_names(settings))
    if cores is not None:
        values["cores"] = cores
    values["interface"] = "parallel"
    work.settle()  # Before anything forks.
    ppserver.run(registry, **values)


def run_once(*, seconds: float = _PASS_SECONDS) -> int:
    """One pass: what callbacks have for the main thread is done, waiting ``seconds`` for some.

    The first call begins to serve what is registered, within this process, as a server's
    ``start()`` does. Gives how many jobs, servers and connections there are. For programs with a
    loop of their own::

        while parallel.run_once():
            ...

    Raises RuntimeError if nothing is registered, submitted or started.
    """
    _Course.ran = True
    started = _Course.background is not None or any(s.is_started for s in registry.servers)
    if not started and registry.transports:
        _Course.background = background.Background(registry)
        _Course.background.start(None, {})
    elif not started and not work.pending():
        raise RuntimeError("nothing is registered: parallel.register() comes first")
    else:
        work.begin()
    background.run_errands(seconds, lambda: _left(registry) == 0)
    return _left(registry)


def _left(registered: Registry) -> int:
    """Jobs, connections, and servers that may get some."""
    serving = _Course.background
    serves = len(registered.servers) if serving is not None and serving.is_alive() else 0
    serves += sum(server.is_started for server in registered.servers)
    connections = sum(registered.counted(each)[0] for each in registered.transports)
    return work.pending() + serves + connections


def loaded_by_ppserver() -> Program:
    """For ppserver, an entry point of its group ``ppserver.programs``: what the program registers
    from now on, which is what this returns, is served by the one who loads it."""
    _Course.loaded_by_ppserver = True
    return registry


def _serve_at_exit() -> None:
    """A program that ends after register() serves from then on, unless it failed."""
    if _Course.ran or _Course.loaded_by_ppserver or getattr(sys, "last_type", None) is not None:
        return
    if any(server.was_started for server in registry.servers):
        return
    if not _MAY_START_AT_EXIT:
        print(
            "error: the program ended, and from Python 3.12 on nothing can be started then\n"
            "hint: call parallel.run() at its end, or start it with: ppserver "
            f"{os.path.basename(sys.argv[0])}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(3)
    try:
        run()
    except SystemExit as error:
        code = error.code
    except Exception as error:
        from ppserver.errors import PPServerError, report

        if not isinstance(error, PPServerError):
            raise
        report(error, sys.stderr)
        code = error.exit_code
    else:
        return
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)
