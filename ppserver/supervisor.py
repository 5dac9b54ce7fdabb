"""The supervisor: owns the sockets, keeps a host and its contexts alive, handles signals.

It never imports the application, so nothing the application does can hurt it, and a reload
starts from clean memory. One thread, one ``poll``: messages of hosts, signals, time.

A *slot* is a place for a context, with its own listening sockets where the kernel spreads
connections. A *generation* is one host with its contexts; a reload starts a second generation
beside the first and ends the first once the second serves.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from typing import Any

from ppserver import contexts, freezing, logs, terminal
from ppserver.config import Config
from ppserver.contexts.channel import Channel, SignalPipe
from ppserver.contexts.host import start_host
from ppserver.contexts.seats import Seats
from ppserver.errors import PPServerError, StartupError
from ppserver.sockets import Listeners, neighbours, parse_address

logger = logging.getLogger("ppserver.error")

_START_FAILURES_MAX = 5
_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 5.0
_STEADY_AFTER = 5.0  # A context that lived this long did not die of its start.
_KILL_MARGIN = 8.0  # Beyond the graceful timeout: lifespan shutdown has its own minimum.


@dataclasses.dataclass(slots=True)
class Context:
    """A context as the supervisor knows it; its key is the number of its process or thread."""

    slot: int
    key: int
    seat: int | None
    started: float
    ready: bool = False
    leaving: bool = False
    drains: bool = False  # it uses its sockets no more
    kill_at: float = 0.0


@dataclasses.dataclass(slots=True)
class Generation:
    """A host and its contexts."""

    number: int
    pid: int
    channel: Channel
    place: str = ""
    loaded: bool = False
    leaving: bool = False
    served: bool = False
    contexts: dict[int, Context] = dataclasses.field(default_factory=dict)
    starting: list[int] = dataclasses.field(default_factory=list)  # slots; no word of them yet

    def in_slot(self, slot: int) -> list[Context]:
        return [c for c in self.contexts.values() if c.slot == slot and not c.leaving]

    def is_settled(self, slot: int) -> bool:
        """Whether each context in ``slot`` serves, or has let go of its sockets."""
        return slot not in self.starting and all(
            context.drains if context.leaving else context.ready
            for context in self.contexts.values()
            if context.slot == slot
        )


def run(config: Config) -> int:
    """Serve with several contexts until told to stop; the exit code.

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
    if not isinstance(config.app, str) and config.contexts != "interpreters":
        # It is loaded here, and frozen in the host it would be there twice.
        freezing.prepare(config, config.app)
    with Listeners(config) as listeners, contexts.pid_file(config):
        listeners.give_files(*identity)
        seats = Seats(contexts.context_count(config), config.balance)
        try:
            return Supervisor(config, listeners, seats).run()
        finally:
            seats.close()


class Supervisor:
    """Keeps ``context_count(config)`` contexts serving. Runs in the main thread."""

    def __init__(self, config: Config, listeners: Listeners, seats: Seats) -> None:
        self._config = config
        self._listeners = listeners
        self._seats = seats
        self._slots = contexts.context_count(config)
        self._wanted = self._slots  # what the signals asked for; _resize() gets there
        self._generations: list[Generation] = []
        self._announced = False
        self._addresses: Any = None  # what a program of the parallel API listens on
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
        self._resize()
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
        pid, channel = start_host(self._config, self._seats, close_in_child)
        self._generations.append(Generation(number, pid, channel))
        logger.debug("Started host [%d]", pid)

    def _spawn(self, generation: Generation, slot: int) -> None:
        """Have ``generation`` start a context in ``slot``."""
        listening = self._listeners.take(
            slot, alone=self._slots == 1, neighbours=neighbours(self._config, slot, self._slots)
        )
        generation.channel.send(
            "start",
            sockets=[entry.socket for entry in listening],
            slot=slot,
            seat=self._seats.take(),
            kinds=[entry.kind for entry in listening],
            tags=[entry.tag for entry in listening],
        )
        generation.starting.append(slot)

    def _on_message(self, generation: Generation) -> None:
        received = generation.channel.receive()
        if received is None:
            return  # The host ended; its process number says more.
        message, _ = received
        kind = message["kind"]
        if kind == "loaded":
            generation.loaded = True
            generation.place = message["place"]
            if not self._stopping and not self._listen(message["addresses"]):
                self._give_up(generation, "the program listens elsewhere now; restart it", 1)
                return
            if not self._announced:
                contexts.banner(
                    self._config,
                    generation.place,
                    message["interface"],
                    message["loop"],
                    message["why"],
                )
            if not self._stopping:
                for slot in range(self._slots):
                    self._spawn(generation, slot)
        else:
            # A context's own message may overtake the host's word that it has started.
            context = generation.contexts.get(message["key"])
            if context is None:
                context = self._add(generation, message)
            if kind == "ready":
                self._on_ready(generation, context)
            elif kind == "stop":
                self._on_stop()
            elif kind == "retire" and context.slot < self._slots:
                self._spawn(generation, context.slot)
            elif kind == "draining":
                context.leaving = context.drains = True
                self._release(context.slot)
            elif kind == "ended":
                del generation.contexts[context.key]
                self._on_ended(generation, context, message["code"])

    def _listen(self, addresses: Sequence[Sequence[tuple[str, str]]]) -> bool:
        """Open the addresses that only the loaded application knows; False if they are others than
        those that are open."""
        if self._config.interface != "parallel":
            return True
        if self._addresses is not None:
            return bool(self._addresses == addresses)
        self._addresses = addresses
        try:
            self._listeners.open(
                [
                    [
                        dataclasses.replace(parse_address(text), scheme=scheme)
                        for text, scheme in one
                    ]
                    for one in addresses
                ]
            )
        except PPServerError as error:
            from ppserver.cli import report

            report(error, sys.stderr)
            self._exit_code = error.exit_code
            self._stop()
        return True

    def _add(self, generation: Generation, message: dict[str, Any]) -> Context:
        slot, key = message["slot"], message["key"]
        context = Context(slot, key, message["seat"], time.monotonic())
        generation.contexts[key] = context
        generation.starting.remove(slot)
        if self._stopping or generation.leaving or slot >= self._slots:
            self._end(generation, context)
        return context

    def _on_ready(self, generation: Generation, context: Context) -> None:
        context.ready = True
        for other in generation.in_slot(context.slot):
            if other is not context and other.ready:
                self._end(generation, other)  # It asked for a successor, and here it is.
        ready = {c.slot for c in generation.contexts.values() if c.ready}
        if len(ready) < self._slots:
            return
        generation.served = True
        if not self._announced:
            self._announced = True
            logs.announce(self._listeners.urls)
        for older in self._generations[: self._generations.index(generation)]:
            if not older.leaving:
                logger.info("Reloaded: host [%d] replaces [%d]", generation.pid, older.pid)
                self._leave(older)

    def _on_ended(self, generation: Generation, context: Context, code: int) -> None:
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        slot = context.slot
        self._seats.give(context.seat)
        if self._stopping or generation.leaving or slot >= self._slots:
            if code != 0 and not (context.kill_at and code == -signal.SIGKILL):
                logger.error("Context %d [%d] ended %s", slot + 1, context.key, how)
                self._exit_code = self._exit_code or (1 if self._stopping else 0)
            self._release(slot)
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
            logger.error("Context %d [%d] ended %s: replacing it", slot + 1, context.key, how)
        self._waiting[slot] = time.monotonic() + pause

    def _release(self, slot: int) -> None:
        """Close the sockets of a slot that is given up, once nobody accepts from them."""
        here = (c for g in self._generations for c in g.contexts.values() if c.slot == slot)
        if slot >= self._slots and all(context.drains for context in here):
            self._listeners.release(slot)

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

    def _end(self, generation: Generation, context: Context, how: str = "stop") -> None:
        """Have a context "stop" or "quit", and kill it if it takes too long."""
        config = self._config
        context.leaving = True
        grace = config.timeout_graceful_shutdown + config.shutdown_delay + _KILL_MARGIN
        if how == "quit":
            grace = _KILL_MARGIN
        context.kill_at = time.monotonic() + grace
        generation.channel.send("tell", key=context.key, what=how)

    def _kill_context(self, generation: Generation, context: Context) -> None:
        """End a context by force. A thread has no end of its own: its host goes with it, unless
        other contexts there still serve."""
        if generation.place in ("", "processes"):
            _kill(context.key, signal.SIGKILL)
        elif generation.leaving or self._stopping:
            _kill(generation.pid, signal.SIGKILL)

    def _leave(self, generation: Generation, how: str = "stop") -> None:
        """End a generation: its contexts, and the host after them."""
        generation.leaving = True
        for context in generation.contexts.values():
            self._end(generation, context, how)
        if not generation.channel.send("leave") or not generation.loaded:
            _kill(generation.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Learn which hosts ended."""
        for generation in list(self._generations):
            pid, status = os.waitpid(generation.pid, os.WNOHANG)
            if not pid:
                continue
            while (received := generation.channel.receive()) is not None:
                message = received[0]
                if message["kind"] == "ended":
                    context = generation.contexts.pop(message["key"], None)
                    if context is not None and (self._stopping or generation.leaving):
                        self._on_ended(generation, context, message["code"])
            generation.channel.close()
            self._generations.remove(generation)
            for context in generation.contexts.values():
                self._seats.give(context.seat)
            code = os.waitstatus_to_exitcode(status)
            if self._stopping or generation.leaving:
                continue
            if not generation.loaded or not generation.served:
                self._give_up(generation, "the application could not be loaded", code)
                continue
            logger.error("Host [%d] ended with %d and took its contexts along", pid, code)
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
                    logger.error("Context [%d] did not end in time: killed", context.key)
                    context.kill_at = now + _KILL_MARGIN
                    self._kill_context(generation, context)

    # Signals.

    def _stop(self, how: str = "stop") -> None:
        self._stopping = True
        self._waiting.clear()
        self._quiet_at = time.monotonic() + self._config.shutdown_delay
        if not self._config.shutdown_delay:
            self._be_quiet()
        for generation in self._generations:
            self._leave(generation, how)

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
                    self._kill_context(generation, context)
                _kill(generation.pid, signal.SIGKILL)
            return
        logger.info("Shutting down")
        self._told_at = time.monotonic()
        self._stop()

    def _on_quit(self) -> None:
        logger.info("Shutting down without waiting for requests")
        self._stop("quit")

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
                generation.channel.send("tell", key=context.key, what="reopen")

    def _on_more(self) -> None:
        self._wanted += 1

    def _on_fewer(self) -> None:
        self._wanted = max(1, self._wanted - 1)

    def _resize(self) -> None:
        """Get nearer to the number of contexts that is wanted, slot by slot.

        A slot is given up once its context serves, and used again once its sockets are closed:
        connections that wait in a queue then always have somebody who takes them.
        """
        newest = self._newest
        if self._stopping or newest is None or len(self._generations) > 1 or not newest.served:
            return
        while self._wanted > self._slots and newest.is_settled(self._slots):
            try:
                self._listeners.take(self._slots)
            except PPServerError as error:
                logger.error("No further context: %s", error)
                self._wanted = self._slots
                return
            self._slots += 1
            logger.info("Contexts: %d", self._slots)
            self._spawn(newest, self._slots - 1)
        while self._wanted < self._slots and newest.is_settled(self._slots - 1):
            self._slots -= 1
            logger.info("Contexts: %d", self._slots)
            self._waiting.pop(self._slots, None)
            self._listeners.quiesce(self._slots)
            for context in newest.in_slot(self._slots):
                self._end(newest, context)


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
