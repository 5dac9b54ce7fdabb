"""The supervisor: owns the sockets, keeps a loader and its contexts alive, handles signals.

It never imports the application, so nothing the application does can hurt it, and a reload
starts from clean memory. One thread, one ``poll``: messages of loaders, signals, time.

A *slot* is a place for a context, with its own listening sockets. A *generation* is one loader
with the contexts forked from it; a reload starts a second generation beside the first and ends
the first once the second serves.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Container

from ppserver import contexts, logs, terminal
from ppserver.config import Config
from ppserver.contexts.processes import Channel, SignalPipe, start_loader
from ppserver.errors import PPServerError, StartupError
from ppserver.sockets import Listeners

logger = logging.getLogger("ppserver.error")

_START_FAILURES_MAX = 5
_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 5.0
_STEADY_AFTER = 5.0  # A context that lived this long did not die of its start.
_KILL_MARGIN = 8.0  # Beyond the graceful timeout: lifespan shutdown has its own minimum.


@dataclasses.dataclass(slots=True)
class Context:
    """A forked context as the supervisor knows it."""

    slot: int
    pid: int
    started: float
    ready: bool = False
    leaving: bool = False
    kill_at: float = 0.0


@dataclasses.dataclass(slots=True)
class Generation:
    """A loader and its contexts."""

    number: int
    pid: int
    channel: Channel
    loaded: bool = False
    leaving: bool = False
    served: bool = False
    contexts: dict[int, Context] = dataclasses.field(default_factory=dict)

    def in_slot(self, slot: int) -> list[Context]:
        return [c for c in self.contexts.values() if c.slot == slot and not c.leaving]


def run(config: Config) -> int:
    """Serve with forked contexts until told to stop; the exit code.

    Raises PPServerError if an address, the pid file or the user cannot be had, or if this is
    not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise StartupError(
            "several contexts can only be started in the main thread",
            hint="it alone receives signals, and its end is what the contexts watch",
        )
    logs.configure(config)
    contexts.set_umask(config)
    identity = contexts.identity(config)
    with Listeners(config) as listeners, contexts.pid_file(config):
        listeners.give_files(*identity)
        return Supervisor(config, listeners).run()


class Supervisor:
    """Keeps ``context_count(config)`` contexts serving. Runs in the main thread."""

    def __init__(self, config: Config, listeners: Listeners) -> None:
        self._config = config
        self._listeners = listeners
        self._slots = contexts.context_count(config)
        self._generations: list[Generation] = []
        self._announced = False
        self._stopping = False
        self._told_at = 0.0
        self._quiet_at = 0.0
        self._exit_code = 0
        self._waiting: dict[int, float] = {}  # slot → when to start a context in it
        self._failures: dict[int, int] = {}  # slot → deaths in a row soon after the start
        self._actions: list[str] = []
        self._pipe: SignalPipe | None = None

    def run(self) -> int:
        """Everything; the exit code."""
        logger.info("Started supervisor process [%d]", os.getpid())
        for slot in range(self._slots):
            self._listeners.take(slot)
        names = {
            signal.SIGTERM: "stop",
            signal.SIGINT: "stop",
            signal.SIGQUIT: "quit",
            signal.SIGHUP: "reload",
            signal.SIGUSR1: "reopen",
            signal.SIGTTIN: "more",
            signal.SIGTTOU: "fewer",
        }
        self._pipe = SignalPipe(
            {
                signal.SIGCHLD: lambda: None,
                **{number: self._handler(name) for number, name in names.items()},
            }
        )
        try:
            self._start_generation()
            while self._generations:
                self._turn()
        finally:
            for generation in self._generations:
                _kill(generation.pid, signal.SIGKILL)
            self._pipe.close()
        logger.info("Finished supervisor process [%d]", os.getpid())
        return self._exit_code

    def _handler(self, name: str) -> Callable[[], None]:
        return lambda: self._actions.append(name)

    def _turn(self) -> None:
        """Wait for something, then deal with all of it."""
        assert self._pipe is not None
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        for generation in self._generations:
            poll.register(generation.channel, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self._timeout_ms())}
        if self._pipe.fileno() in ready:
            self._pipe.clear()
        while self._actions:
            getattr(self, f"_on_{self._actions.pop(0)}")()
        for generation in list(self._generations):
            if generation.channel.fileno() in ready:
                self._on_message(generation)
        self._reap()
        if os.getpid() == 1:
            reap_orphans({generation.pid for generation in self._generations})
        self._on_time()

    def _timeout_ms(self) -> float | None:
        times = list(self._waiting.values())
        times += [c.kill_at for g in self._generations for c in g.contexts.values() if c.kill_at]
        if self._quiet_at:
            times.append(self._quiet_at)
        if not times:
            return None
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1

    # Generations and contexts.

    @property
    def _newest(self) -> Generation | None:
        return self._generations[-1] if self._generations else None

    def _start_generation(self) -> None:
        assert self._pipe is not None
        pipe, others = self._pipe, [generation.channel for generation in self._generations]

        def close_in_child() -> None:
            pipe.close(restore=False)
            self._listeners.disown()
            for channel in others:
                channel.close()

        number = self._generations[-1].number + 1 if self._generations else 1
        pid, channel = start_loader(self._config, close_in_child)
        self._generations.append(Generation(number, pid, channel))
        logger.debug("Started loader [%d]", pid)

    def _spawn(self, generation: Generation, slot: int) -> None:
        """Have ``generation`` start a context in ``slot``."""
        listening = self._listeners.take(slot, alone=self._slots == 1)
        generation.channel.send(
            "spawn",
            sockets=[entry.socket for entry in listening],
            slot=slot,
            shared=[entry.shared for entry in listening],
        )

    def _on_message(self, generation: Generation) -> None:
        received = generation.channel.receive()
        if received is None:
            return  # The loader ended; its process number says more.
        message, _ = received
        kind = message["kind"]
        if kind == "loaded":
            generation.loaded = True
            if not self._announced:
                contexts.banner(self._config, "processes", message["interface"])
            if not self._stopping:
                for slot in range(self._slots):
                    self._spawn(generation, slot)
        else:
            # A context's own message may overtake the loader's word that it has started.
            context = generation.contexts.get(message["pid"])
            if context is None:
                context = self._add(generation, message["slot"], message["pid"])
            if kind == "ready":
                self._on_ready(generation, context)
            elif kind == "retire":
                self._spawn(generation, context.slot)
            elif kind == "draining":
                context.leaving = True
                if context.slot >= self._slots:
                    self._listeners.release(context.slot)
            elif kind == "ended":
                del generation.contexts[context.pid]
                self._on_ended(generation, context, message["code"])

    def _add(self, generation: Generation, slot: int, pid: int) -> Context:
        context = generation.contexts[pid] = Context(slot, pid, time.monotonic())
        if self._stopping or generation.leaving or slot >= self._slots:
            self._end(context)
        return context

    def _on_ready(self, generation: Generation, context: Context) -> None:
        context.ready = True
        for other in generation.in_slot(context.slot):
            if other is not context and other.ready:
                self._end(other)  # It asked for a successor, and here it is.
        ready = {c.slot for c in generation.contexts.values() if c.ready}
        if len(ready) < self._slots:
            return
        generation.served = True
        if not self._announced:
            self._announced = True
            logs.announce(self._listeners.urls)
        for older in self._generations[: self._generations.index(generation)]:
            if not older.leaving:
                logger.info("Reloaded: loader [%d] replaces [%d]", generation.pid, older.pid)
                self._leave(older)

    def _on_ended(self, generation: Generation, context: Context, code: int) -> None:
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        slot = context.slot
        if self._stopping or generation.leaving or slot >= self._slots:
            if code != 0 and not (context.kill_at and code == -signal.SIGKILL):
                logger.error("Context %d [%d] ended %s", slot + 1, context.pid, how)
                self._exit_code = self._exit_code or (1 if self._stopping else 0)
            if slot >= self._slots:
                self._listeners.release(slot)
            return
        if not context.ready and not generation.served:
            self._give_up(generation, f"context {slot + 1} could not start", code)
            return
        if generation.in_slot(slot) and context.leaving:
            return  # Its successor serves already.
        short = time.monotonic() - context.started < _STEADY_AFTER
        early = code != 0 and (short or not context.ready)
        failures = self._failures.get(slot, 0) + 1 if early else 0
        self._failures[slot] = failures
        if not context.ready and failures >= _START_FAILURES_MAX:
            self._give_up(generation, f"context {slot + 1} failed to start {failures} times", code)
            return
        pause = min(_BACKOFF_FIRST * 2 ** (failures - 2), _BACKOFF_MAX) if failures > 1 else 0.0
        if code != 0:
            logger.error("Context %d [%d] ended %s: replacing it", slot + 1, context.pid, how)
        self._waiting[slot] = time.monotonic() + pause

    def _give_up(self, generation: Generation, why: str, code: int) -> None:
        """A generation that cannot start: the end, unless an older one still serves."""
        older = [other for other in self._generations if other.served and not other.leaving]
        if older and generation not in older:
            logger.error("Reload failed: %s. The old contexts go on.", why)
            self._leave(generation)
            return
        if code not in (2, 3):  # With these it has said why by itself.
            logger.error("Giving up: %s", why)
        self._exit_code = code if code in (2, 3) else 3
        self._stop()

    def _end(self, context: Context, number: int = signal.SIGTERM) -> None:
        """Ask a context to end, and kill it if it takes too long."""
        config = self._config
        context.leaving = True
        grace = config.timeout_graceful_shutdown + config.shutdown_delay + _KILL_MARGIN
        if number == signal.SIGQUIT:
            grace = _KILL_MARGIN
        context.kill_at = time.monotonic() + grace
        _kill(context.pid, number)

    def _leave(self, generation: Generation, number: int = signal.SIGTERM) -> None:
        """End a generation: its contexts, and the loader after them."""
        generation.leaving = True
        for context in generation.contexts.values():
            self._end(context, number)
        if not generation.channel.send("quit") or not generation.loaded:
            _kill(generation.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Learn which loaders ended."""
        for generation in list(self._generations):
            pid, status = os.waitpid(generation.pid, os.WNOHANG)
            if not pid:
                continue
            while (received := generation.channel.receive()) is not None:
                message = received[0]
                if message["kind"] == "ended":
                    context = generation.contexts.pop(message["pid"], None)
                    if context is not None and (self._stopping or generation.leaving):
                        self._on_ended(generation, context, message["code"])
            generation.channel.close()
            self._generations.remove(generation)
            code = os.waitstatus_to_exitcode(status)
            if self._stopping or generation.leaving:
                continue
            if not generation.loaded or not generation.served:
                self._give_up(generation, "the application could not be loaded", code)
                continue
            logger.error("Loader [%d] ended with %d and took its contexts along", pid, code)
            self._waiting.clear()
            self._start_generation()

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._quiet_at and self._quiet_at <= now:
            self._be_quiet()
        newest = self._newest
        for slot, when in list(self._waiting.items()):
            if when > now:
                continue
            del self._waiting[slot]
            if newest is not None and not self._stopping and slot < self._slots:
                serving = [g for g in self._generations if g.served and not g.leaving]
                self._spawn(serving[-1] if serving else newest, slot)
        for generation in self._generations:
            for context in generation.contexts.values():
                if context.kill_at and context.kill_at <= now:
                    logger.error("Context [%d] did not end in time: killed", context.pid)
                    context.kill_at = now + _KILL_MARGIN
                    _kill(context.pid, signal.SIGKILL)

    # Signals.

    def _stop(self, number: int = signal.SIGTERM) -> None:
        self._stopping = True
        self._waiting.clear()
        self._quiet_at = time.monotonic() + self._config.shutdown_delay
        if not self._config.shutdown_delay:
            self._be_quiet()
        for generation in self._generations:
            self._leave(generation, number)

    def _be_quiet(self) -> None:
        """The contexts begin to drain about now: no new connections, and our copies go."""
        self._quiet_at = 0.0
        self._listeners.quiesce()
        self._listeners.disown()

    def _on_stop(self) -> None:
        if self._stopping:
            if time.monotonic() < self._told_at + terminal.SAME_SIGNAL_SECONDS:
                return
            logger.warning("Second signal: ending at once")
            self._exit_code = 1
            for generation in self._generations:
                for context in generation.contexts.values():
                    context.kill_at = context.kill_at or time.monotonic() + _KILL_MARGIN
                    _kill(context.pid, signal.SIGKILL)
                _kill(generation.pid, signal.SIGKILL)
            return
        logger.info("Shutting down")
        self._told_at = time.monotonic()
        self._stop()

    def _on_quit(self) -> None:
        logger.info("Shutting down without waiting for requests")
        self._stop(signal.SIGQUIT)

    def _on_reload(self) -> None:
        if terminal.is_gone():
            self._on_stop()
        elif self._stopping:
            return
        elif len(self._generations) > 1 or not self._announced:
            logger.warning("Still starting or reloading: SIGHUP ignored")
        else:
            logger.info("Reloading")
            self._start_generation()

    def _on_reopen(self) -> None:
        logs.reopen()
        for generation in self._generations:
            for context in generation.contexts.values():
                _kill(context.pid, signal.SIGUSR1)

    def _on_more(self) -> None:
        newest = self._newest
        if self._stopping or newest is None or len(self._generations) > 1 or not newest.served:
            return
        try:
            self._listeners.take(self._slots)
        except PPServerError as error:
            logger.error("No further context: %s", error)
            return
        self._slots += 1
        logger.info("Contexts: %d", self._slots)
        self._spawn(newest, self._slots - 1)

    def _on_fewer(self) -> None:
        if self._stopping or len(self._generations) > 1 or self._slots == 1:
            return
        self._slots -= 1
        logger.info("Contexts: %d", self._slots)
        self._waiting.pop(self._slots, None)
        self._listeners.quiesce(self._slots)
        for generation in self._generations:
            for context in generation.in_slot(self._slots):
                self._end(context)


def reap_orphans(but: Container[int]) -> None:
    """As a container's first process: take leave of everybody's orphans that ended.

    Leaves the children in ``but`` to those who want their exit status.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in but:
            return
        os.waitpid(ended.si_pid, 0)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
