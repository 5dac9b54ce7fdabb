"""Serving within a process that does something else: a prompt, a notebook, a program of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

_START_SECONDS = 30.0
_LOOK_SECONDS = 0.02
_GRACE_SECONDS = 5.0  # beyond the time that requests are given to end


class Background:
    """The contexts of one registry, each in a thread of this process. Never a fork: what forks a
    notebook's kernel, or a program with threads, breaks it."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._threads: list[threading.Thread] = []
        self._servers: list[Any] = []
        self._stack = contextlib.ExitStack()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._errands: Any = None

    def start(self, cores: int | str | None, settings: dict[str, Any]) -> None:
        """Begin, and wait until it serves. Raises PPServerError if it cannot; then nothing is left
        of it."""
        from ppserver.app.loader import load
        from ppserver.config import Config, own_names
        from ppserver.context.listeners import Listeners
        from ppserver.machine import gil
        from ppserver.observe import logs

        values: dict[str, Any] = {"access_log": False, "cores": "all", "log_level": "warning"}
        values.update(own_names(settings))
        if cores is not None:
            values["cores"] = cores
        config = Config(self._registry, **{**values, "interface": "parallel"})
        logs.configure(config)
        try:
            listeners = self._stack.enter_context(Listeners(config))
            application = load(config)
            listeners.open(application.addresses)
            self._registry.before_contexts(None, forked=False)
            self._make_servers(
                config, application, listeners, gil.FREE_THREADED and not gil.enabled()
            )
            self._wait_until_serving()
        except BaseException:
            self.stop(0.0)
            raise
        atexit.register(self.stop)

    def _make_servers(self, config: Any, application: Any, listeners: Any, many: bool) -> None:
        from ppserver.context.listeners import neighbours
        from ppserver.context.seats import Seats
        from ppserver.context.server import Server
        from ppserver.context.wiring import Supervision, Wiring
        from ppserver.supervision import plan

        count = plan.context_count(config) if many else 1
        seats = self._stack.enter_context(contextlib.closing(Seats(count, config.balance)))
        main = self._way()
        report = self._report()
        for slot in range(count):
            supervision = Supervision(report, slot=slot, main=main)
            wiring = Wiring(
                application=application,
                listening=listeners.take(
                    slot, alone=count == 1, neighbours=neighbours(config, slot, count)
                ),
                seat=seats.seat(seats.take(), local=True) if count > 1 else None,
                supervision=supervision,
            )
            server = Server(config, _wiring=wiring)
            self._servers.append(server)
            thread = threading.Thread(
                target=self._serve, args=(server,), name=f"parallel context {slot + 1}", daemon=True
            )
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def _way(self) -> Any:
        """To the main thread: by its asyncio loop if it is inside one, as a notebook's is; or what
        it has to do waits for `run_once`."""
        from ppserver.context.main_thread import LoopErrands, QueueErrands

        if threading.current_thread() is threading.main_thread():
            with contextlib.suppress(RuntimeError):
                self._errands = LoopErrands(asyncio.get_running_loop())
                return self._errands
        self._errands = QueueErrands(_woken.set)
        _queues.append(self._errands)
        return self._errands

    def _serve(self, server: Any) -> None:
        try:
            server.run()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _report(self) -> Any:
        """What its contexts tell."""
        from ppserver.context.wiring import Report

        background = self

        class Heard(Report):
            def ready(self) -> None:
                background._notify()

            def stop(self) -> None:
                background._ask_to_stop()

        return Heard()

    def _wait_until_serving(self) -> None:
        from ppserver.errors import StartupError

        def over() -> bool:
            return self._error is not None or all(
                server.started or not thread.is_alive()
                for server, thread in zip(self._servers, self._threads, strict=True)
            )

        with self._changed:
            self._changed.wait_for(over, _START_SECONDS)
        if self._error is not None:
            raise self._error
        if not all(server.started for server in self._servers):
            raise StartupError(f"it does not serve after {_START_SECONDS:g} s")

    def _ask_to_stop(self) -> None:
        for server in self._servers:
            server.should_exit = True

    def is_alive(self) -> bool:
        """Whether a context runs."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float = 5.0) -> None:
        """End it: requests have ``timeout`` seconds. Again is harmless."""
        self._ask_to_stop()
        self._join(timeout)
        for server, thread in zip(self._servers, self._threads, strict=True):
            if thread.is_alive():
                server.exit_now()
        self._join(_GRACE_SECONDS)
        self._stack.close()
        if self._errands is not None:
            if self._errands in _queues:
                _queues.remove(self._errands)
            self._errands.close()
            self._errands = None
        atexit.unregister(self.stop)

    def _join(self, seconds: float) -> None:
        """Wait for the threads. A callback may wait for this very thread meanwhile."""
        end = time.monotonic() + seconds
        is_main = threading.current_thread() is threading.main_thread()
        for thread in self._threads:
            while thread.is_alive() and (left := end - time.monotonic()) > 0:
                thread.join(min(left, _LOOK_SECONDS))
                if is_main and self._errands is not None:
                    self._errands.do_all()


_queues: list[Any] = []
_woken = threading.Event()


def run_errands(seconds: float, until: Callable[[], bool]) -> None:
    """In the main thread: do what callbacks have for it, waiting for some that long."""
    if not until():
        _woken.wait(seconds)
    _woken.clear()
    for each in list(_queues):
        each.do_all()
