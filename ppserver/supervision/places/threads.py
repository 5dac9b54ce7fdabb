"""Contexts as threads of the host.

Each has its own C core, event loop, lifespan and constants; the application's code and data are
one copy. On a free-threaded CPython all of them run Python at the same time. With a GIL only the
C side does: waiting, receiving, parsing and writing.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections import deque

from ppserver import freezing
from ppserver.app import lifespan
from ppserver.app.loader import Application
from ppserver.config import Config
from ppserver.context.exits import exit_code_of
from ppserver.context.server import Server
from ppserver.context.wiring import Supervision, Wiring
from ppserver.freezing import FreezeReport
from ppserver.machine import gil, topology
from ppserver.supervision.places.base import Order, Place, Premises
from ppserver.supervision.report import ChannelReport

logger = logging.getLogger("ppserver.error")


class Threads(Place):
    """Runs a thread per context."""

    @staticmethod
    def prepare(config: Config, application: Application | None) -> FreezeReport:
        """Make what is loaded fit to be shared by threads, and say what does not fit.

        With a GIL they do not fight over reference counts, so nothing is made immortal.
        """
        assert application is not None
        if (
            application.interface == "asgi"
            and application.make is None
            and config.lifespan != "off"
            and lifespan.takes_part(application.call)
        ):
            logger.warning(
                "One application object runs its lifespan in every context: what it keeps on "
                "itself then (a pool on app.state, say) is overwritten by the next context and "
                "belongs to another event loop. Give a factory (module:make(), or --factory), or "
                "keep such things in lifespan state (scope['state'])."
            )
        if gil.FREE_THREADED:
            return freezing.prepare(config, application)
        gc.collect()
        gc.freeze()
        return FreezeReport.nothing("threads of one GIL do not fight over reference counts")

    def __init__(self, premises: Premises) -> None:
        freezing.contexts_started()
        self._premises = premises
        self._servers: dict[int, Server] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._ended: deque[tuple[int, int]] = deque()
        self._making = threading.Lock()  # Factories of applications run one at a time.
        self._made_one = False

    def start(self, order: Order) -> int:
        """Start a context's thread; the kernel's number of it."""
        begun = threading.Event()
        thread = threading.Thread(
            target=self._context,
            args=(order, begun),
            name=f"ppserver context {order.slot + 1}",
            daemon=True,
        )
        thread.start()
        begun.wait()
        assert thread.native_id is not None
        self._threads[thread.native_id] = thread
        return thread.native_id

    def announced(self, key: int) -> None:
        """It runs already."""

    def ended(self) -> list[tuple[int, int]]:
        """Threads that ended, with the exit codes they would have as processes."""
        found = []
        while self._ended:
            key, code = self._ended.popleft()
            self._threads.pop(key).join()  # After this it cannot wake a pipe that is closed.
            self._servers.pop(key, None)
            found.append((key, code))
        return found

    def tell(self, key: int, what: str) -> None:
        """Stop a context. The host has opened the log files anew for all of them."""
        server = self._servers.get(key)
        if server is not None and what == "quit":
            server.exit_now()
        elif server is not None and what == "stop":
            server.should_exit = True

    def abandon(self) -> None:
        """End the process."""
        os._exit(1)

    def _context(self, order: Order, begun: threading.Event) -> None:
        """A context's whole life, in its thread."""
        key = threading.get_native_id()
        code = exit_code_of(lambda: self._live(order, key, begun))
        begun.set()
        self._ended.append((key, code))
        self._premises.pipe.wake()

    def _live(self, order: Order, key: int, begun: threading.Event) -> int:
        """Make a server and run it; the exit code."""
        premises = self._premises
        topology.pin(premises.config, order.slot)

        report = ChannelReport(premises.channel, key, order.listening)
        server = self._servers[key] = Server(
            premises.config,
            _wiring=Wiring(
                listening=order.listening,
                make_application=self._application,
                seat=premises.seats.seat(order.seat, local=True),
                supervision=Supervision(
                    report,
                    slot=order.slot,
                    main=None if premises.errands is None else premises.errands.local,
                ),
            ),
        )
        begun.set()
        try:
            return server.run()
        finally:
            report.close_sockets()

    def _application(self) -> Application:
        """The application for one more context: an instance of its own if a factory makes it."""
        with self._making:
            application = self._premises.application
            assert application is not None
            if self._made_one:
                return application.another()
            self._made_one = True
            return application
