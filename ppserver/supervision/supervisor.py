"""The supervisor: owns the sockets, keeps a host and its contexts alive, handles signals.

It never imports the application, so nothing the application does can hurt it, and a reload
starts from clean memory. One thread, one ``poll``: messages of hosts, signals, time.

A *slot* is a place for a context, with its own listening sockets where the kernel spreads
connections. A *generation* is one host with its contexts; a reload starts a second generation
beside the first and ends the first once the second serves.

It outlives everything: each system call of its own may fail, which is logged and tried again
later, and touches nothing that serves. It never waits but in its ``poll``. And it believes nothing
that comes by the channel but what the kernel confirms: see :mod:`~ppserver.supervision.messages`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ppserver import freezing
from ppserver.app import disposal, opened
from ppserver.config import Config
from ppserver.config.addresses import parse_address
from ppserver.context import exits
from ppserver.context.listeners import Listeners, neighbours
from ppserver.context.seats import Seats
from ppserver.errors import PPServerError, StartupError, report
from ppserver.machine import terminal
from ppserver.observe import logs, readiness
from ppserver.supervision import family, messages, pidfile, plan, privileges
from ppserver.supervision.channel import SignalPipe
from ppserver.supervision.generation import Context, Generation
from ppserver.supervision.host import start_host
from ppserver.supervision.messages import (
    Ended,
    Imported,
    Loaded,
    NonsenseError,
    Opened,
    Said,
    Started,
    Unstarted,
)

logger = logging.getLogger("ppserver.error")

_START_FAILURES_MAX = 5
_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 5.0
_FLUSH_PAUSE = 0.05  # Until what a channel had no room for is sent again.
_MESSAGES_A_TURN = 256
_TURNS_OF_WORDS = 16  # What is heard of a host that has ended.
_STEADY_AFTER = 5.0  # A context that lived this long did not die of its start.
_PROGRESS_FIRST = 5.0  # A start that takes longer says how far it is, then less and less often.
_KILL_MARGIN = 8.0  # Beyond the time that a context gives itself.


def run(config: Config, *, alone: bool = False) -> int:
    """Serve with several contexts until told to stop; the exit code.

    ``alone`` says that the process is a command, with no program around this.

    Raises PPServerError if an address, the pid file or the user cannot be had, or if this is
    not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise StartupError(
            "several contexts can only be started in the main thread",
            hint="it alone receives signals, and its end is what the contexts watch",
        )
    logs.configure(config)
    privileges.set_umask(config)
    identity = privileges.identity(config)
    if not isinstance(config.app, str) and config.contexts != "interpreters":
        _look_at_program(config)
        # It is loaded here, and frozen in the host it would be there twice.
        freezing.prepare(config, config.app)
    with Listeners(config) as listeners, pidfile.held(config) as pid_fd:
        listeners.give_files(*identity)
        seats = Seats(plan.context_count(config), config.balance)
        try:
            return Supervisor(config, listeners, seats, pid_fd, alone=alone).run()
        finally:
            seats.close()


def _look_at_program(config: Config) -> None:
    """Warn of what the program that gives its application as an object has opened before."""
    if config.contexts == "threads" or config.interface == "parallel":
        return
    if opened.since(opened.nothing()):
        disposal.dispose()
    found = [one for one in opened.since(opened.nothing()) if one.kind != opened.LISTENER]
    if found:
        logger.warning(
            "The program has left what forked contexts share or lack, and should not: %s. Open "
            "that in on_context_start, or give the application as an import string: 'module:app'.",
            opened.listed(found),
        )


class Supervisor:
    """Keeps ``context_count(config)`` contexts serving. Runs in the main thread."""

    def __init__(
        self,
        config: Config,
        listeners: Listeners,
        seats: Seats,
        pid_fd: int = -1,
        *,
        alone: bool = False,
    ) -> None:
        self._config = config
        self._alone = alone or os.getpid() == 1
        self._listeners = listeners
        self._seats = seats
        self._pid_fd = pid_fd
        self._slots = plan.context_count(config)
        self._wanted = self._slots  # what the signals asked for; _resize() gets there
        self._generations: list[Generation] = []
        self._announced = False
        self._unsaid: Loaded | None = None  # what the banner is made of
        self._addresses: Any = None  # what a program of the parallel API listens on
        self._stopping = False
        self._told_at = 0.0
        self._quiet_at = 0.0
        self._exit_code = 0
        self._failures: dict[int, int] = {}  # slot → deaths in a row soon after the start
        self._unstarted: dict[int, int] = {}  # slot → in a row, contexts that could not be begun
        self._reload_again = False  # SIGHUP came while a generation started
        self._start_at = 0.0  # when to start a generation; 0 for never
        self._start_failures = 0  # hosts in a row that never served, or could not be forked
        self._actions: list[Callable[[], None]] = []
        self._pipe: SignalPipe | None = None
        self._strangers = family.children()  # of the program that this runs in

    def run(self) -> int:
        """Everything; the exit code."""
        logger.info("Started supervisor process [%d]", os.getpid())
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGQUIT: self._on_quit,
            signal.SIGHUP: self._on_reload,
            signal.SIGUSR1: self._on_reopen,
            signal.SIGTTIN: self._on_more,
            signal.SIGTTOU: self._on_fewer,
        }
        # A handler only notes what to do: it may interrupt anything.
        self._pipe = SignalPipe(
            {
                signal.SIGCHLD: lambda: None,
                **{
                    number: functools.partial(self._actions.append, action)
                    for number, action in actions.items()
                },
            }
        )
        adopting = family.adopt(True)
        try:
            self._start_generation()
            while self._generations or self._start_at:
                try:
                    self._turn()
                except StartupError:
                    raise  # There was never one that served.
                except Exception:
                    # Ours, or of a machine at its end. What serves goes on, and so does this.
                    logger.exception("The supervisor failed at something and goes on")
                    time.sleep(_BACKOFF_FIRST)
        finally:
            for generation in self._generations:
                generation.kill_all()
            family.adopt(adopting)
            # A signal that comes while a command ends does not change its exit code.
            self._pipe.close(restore=not self._alone)
        logger.info("Finished supervisor process [%d]", os.getpid())
        return self._exit_code

    def _turn(self) -> None:
        """Wait for something, then deal with all of it."""
        assert self._pipe is not None
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        for generation in self._generations:
            if not generation.channel.ended:
                poll.register(generation.channel, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self._timeout_ms())}
        if self._pipe.fileno() in ready:
            self._pipe.clear()
        while self._actions:
            self._actions.pop(0)()
        for generation in list(self._generations):
            if generation.channel.fileno() in ready:
                self._hear(generation)
        self._reap()
        self._resize()
        self._on_time()

    def _timeout_ms(self) -> float | None:
        times = [when for when in (self._quiet_at, self._start_at, logs.reopen_at()) if when]
        for generation in self._generations:
            times += generation.waiting.values()
            times += [c.kill_at for c in generation.contexts.values() if c.kill_at]
            if generation.pid:
                times += [t for t in (generation.kill_at, self._reload_until(generation)) if t]
            if generation.channel.pending:
                times.append(time.monotonic() + _FLUSH_PAUSE)
            if self._is_starting(generation):
                times.append(generation.progress_at)
        if not times:
            return None
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1

    # Generations and contexts.

    @property
    def _newest(self) -> Generation | None:
        return self._generations[-1] if self._generations else None

    def _start_generation(self, config: Config | None = None) -> None:
        """Fork a host. StartupError if that fails and there was never one that served; after that
        it is tried again later."""
        assert self._pipe is not None
        pipe, others = self._pipe, [generation.channel for generation in self._generations]

        def close_in_child() -> None:
            pipe.close(restore=False)
            if self._pid_fd >= 0:
                os.close(self._pid_fd)
            self._listeners.disown()
            for channel in others:
                channel.close()

        self._start_at = 0.0
        number = self._generations[-1].number + 1 if self._generations else 1
        try:
            pid, channel = start_host(config or self._config, self._seats, close_in_child)
        except OSError as error:
            if not self._announced:
                raise StartupError(f"cannot start a host process: {error.strerror}") from None
            self._start_later(f"cannot start a host process: {error.strerror}")
            return
        now = time.monotonic()
        self._generations.append(
            Generation(number, pid, channel, now, progress_at=now + _PROGRESS_FIRST)
        )
        logger.debug("Started host [%d]", pid)

    def _start_later(self, why: str) -> None:
        """Try again to start a generation, after a pause that grows."""
        self._start_failures += 1
        pause = _pause(self._start_failures)
        logger.error("%s%s: trying again in %g s", why[:1].upper(), why[1:], pause)
        self._start_at = time.monotonic() + pause

    def _spawn(self, generation: Generation, slot: int) -> None:
        """Have ``generation``, which has a host, start a context in ``slot``, now or later."""
        try:
            listening = self._listeners.take(
                slot,
                alone=self._slots == 1,
                neighbours=neighbours(self._config, slot, self._slots),
            )
        except (PPServerError, OSError) as error:
            self._spawn_later(generation, slot, str(error))
            return
        seat = self._seats.take()
        generation.starting.append((slot, seat))
        kinds, tags = [one.kind for one in listening], [one.tag for one in listening]
        messages.send(
            generation.channel,
            messages.Start(slot, seat, kinds, tags),
            sockets=[entry.socket for entry in listening],
        )

    def _spawn_later(self, generation: Generation, slot: int, why: str) -> None:
        failures = self._unstarted[slot] = self._unstarted.get(slot, 0) + 1
        pause = _pause(failures)
        logger.error("Context %d could not be started (%s): again in %g s", slot + 1, why, pause)
        generation.waiting[slot] = time.monotonic() + pause

    def _hear(self, generation: Generation) -> bool:
        """What a host and its contexts say; no more than a turn's share of it: True if there may be
        more."""
        for _ in range(_MESSAGES_A_TURN):
            if (received := generation.channel.receive(0)) is None:
                return False  # If the host ended: its process number says more.
            try:
                message = messages.read(received)
                self._on_message(generation, received.sender, message)
            except NonsenseError as error:
                self._on_nonsense(generation, received.sender, error)
        return True

    def _on_nonsense(self, generation: Generation, sender: int, error: NonsenseError) -> None:
        """Somebody sent what is no message, or was not for it to say: that ends its sender."""
        context = generation.contexts.get(sender)
        if sender and sender == generation.pid:
            logger.error("Host [%d] sent nonsense (%s): killing it", sender, error)
            family.send(generation.pid, signal.SIGKILL)
        elif context is not None and generation.place == "processes":
            logger.error("Context %d [%d] sent nonsense (%s)", context.slot + 1, sender, error)
            context.kill_at = context.kill_at or time.monotonic() + _KILL_MARGIN
            generation.kill_context(context, self._stopping)
        elif not generation.warned:
            generation.warned = True
            logger.error("Process [%d] sent nonsense (%s): ignored", sender, error)

    def _on_message(
        self, generation: Generation, sender: int, message: messages.ToSupervisor
    ) -> None:
        """Do what a message asks for. NonsenseError if its sender has no business to say it."""
        if isinstance(message, Said):
            if sender not in (generation.pid, message.key):
                raise NonsenseError("a message in the name of another")
            context = generation.contexts.get(message.key)
            if context is not None:
                self._on_said(generation, context, message.kind)
            elif len(generation.early) < len(generation.starting) * 4:
                # It may overtake the host's word that this context has started.
                generation.early.append((message.key, message))
            return
        if isinstance(message, Imported):
            if message.key != sender:
                raise NonsenseError("a message in the name of another")
            if sender in generation.contexts:
                self._say_what_runs(message.interface, message.loop)
            return
        if not sender or sender != generation.pid:
            raise NonsenseError("a host's message from a context")
        if isinstance(message, Loaded):
            self._on_loaded(generation, message)
        elif isinstance(message, Opened):
            generation.opened = message.interface
        elif isinstance(message, Ended):
            if generation.place == "processes":
                raise NonsenseError("the end of a process, which the kernel tells")
            if (context := generation.contexts.pop(message.key, None)) is None:
                raise NonsenseError("the end of a context that is not known")
            self._on_ended(generation, context, message.code)
        elif (message.slot, message.seat) not in generation.starting:
            raise NonsenseError("word of a context that was not ordered")
        elif isinstance(message, Started):
            generation.starting.remove((message.slot, message.seat))
            self._on_started(generation, message)
        else:
            generation.starting.remove((message.slot, message.seat))
            self._on_unstarted(generation, message)

    def _on_loaded(self, generation: Generation, message: Loaded) -> None:
        if generation.loaded:
            raise NonsenseError("loaded twice")
        generation.loaded = True
        generation.place = message.place
        if not self._stopping and not self._listen(message.addresses):
            self._give_up(generation, "the program listens elsewhere now; restart it", 1)
            return
        self._unsaid = message
        if message.interface != "auto":
            self._say_what_runs(message.interface, message.loop)
        if not self._stopping:
            for slot in range(self._slots):
                self._spawn(generation, slot)

    def _say_what_runs(self, interface: str, loop: str) -> None:
        """Once; where contexts import the application, the first of them tells what it is."""
        loaded, self._unsaid = self._unsaid, None
        if loaded is not None and not self._announced:
            plan.banner(self._config, loaded.place, interface, loop, loaded.why)

    def _on_started(self, generation: Generation, message: Started) -> None:
        slot, key = message.slot, message.key
        if key in generation.contexts:
            raise NonsenseError("a context that is there already")
        if generation.place == "processes" and (key in self._known() or not family.is_child(key)):
            raise NonsenseError("a context that it has not started")
        context = Context(slot, key, message.seat, time.monotonic())
        self._unstarted.pop(slot, None)
        generation.contexts[key] = context
        if self._stopping or generation.leaving or slot >= self._slots:
            self._end(generation, context)
        early, generation.early = generation.early, []
        for whose, said in early:
            if whose == key:
                self._on_said(generation, context, said.kind)
            elif generation.starting:
                generation.early.append((whose, said))

    def _on_unstarted(self, generation: Generation, message: Unstarted) -> None:
        self._seats.give(message.seat)
        if self._stopping or generation.leaving or message.slot >= self._slots:
            self._release(message.slot)
        elif self._announced or self._unstarted.get(message.slot, 0) + 1 < _START_FAILURES_MAX:
            self._spawn_later(generation, message.slot, message.why)
        else:
            self._give_up(generation, f"context {message.slot + 1}: {message.why}", 1)

    def _on_said(self, generation: Generation, context: Context, kind: str) -> None:
        if kind == "ready" and not context.ready:
            self._on_ready(generation, context)
        elif kind == "stop":
            self._on_stop()
        elif kind == "retire" and not context.retiring:
            context.retiring = True
            if context.slot < self._slots and not self._stopping and generation.pid:
                self._spawn(generation, context.slot)
        elif kind == "draining":
            context.leaving = context.drains = True
            self._release(context.slot)

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
            report(error, sys.stderr)
            self._exit_code = error.exit_code
            self._stop()
        return True

    def _on_ready(self, generation: Generation, context: Context) -> None:
        context.ready = True
        for other in generation.in_slot(context.slot):
            if other is not context and other.ready:
                self._end(generation, other)  # It asked for a successor, and here it is.
        ready = {c.slot for c in generation.contexts.values() if c.ready}
        if len(ready) < self._slots:
            return
        generation.served = True
        self._start_failures = 0
        if not self._announced:
            self._announced = True
            logs.announce(self._listeners.urls)
            readiness.tell(self._listeners.urls)
        for older in self._generations[: self._generations.index(generation)]:
            if older.leaving:
                continue
            if older.pid:
                logger.info("Reloaded: host [%d] replaces [%d]", generation.pid, older.pid)
            else:
                logger.info("Host [%d] replaces the one that ended", generation.pid)
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
        if not generation.pid:
            logger.error("Context %d [%d] ended %s", slot + 1, context.key, how)
            return  # A new host will start one.
        short = time.monotonic() - context.started < _STEADY_AFTER
        early = code != 0 and (short or not context.ready)
        failures = self._failures.get(slot, 0) + 1 if early else 0
        self._failures[slot] = failures
        if not context.ready and failures >= _START_FAILURES_MAX:
            self._give_up(generation, f"context {slot + 1} failed to start {failures} times", code)
            return
        pause = _pause(failures - 1) if failures > 1 else 0.0
        if code != 0:
            logger.error("Context %d [%d] ended %s: replacing it", slot + 1, context.key, how)
        generation.waiting[slot] = time.monotonic() + pause

    def _release(self, slot: int) -> None:
        """Close the sockets of a slot that is given up, once nobody accepts from them."""
        here = (c for g in self._generations for c in g.contexts.values() if c.slot == slot)
        if slot >= self._slots and all(context.drains for context in here):
            self._listeners.release(slot)

    def _give_up(self, generation: Generation, why: str, code: int) -> None:
        """A generation that cannot start: the end, unless an older one still serves, or one did
        and another try may help."""
        older = [other for other in self._generations if other.served and not other.leaving]
        if older and generation not in older:
            self._leave(generation)
            if any(other.pid for other in older):
                logger.error("Reload failed: %s. The old contexts go on.", why)
            else:
                self._start_later(why)  # They go on without a host, but not for ever.
            return
        if self._announced and not generation.served:
            if self._start_failures + 1 < _START_FAILURES_MAX:
                self._leave(generation)
                self._start_later(why)
                return
            why = f"{why}, {_START_FAILURES_MAX} times"
        if code not in (2, 3):  # With these it has said why by itself.
            logger.error("Giving up: %s", why)
        self._exit_code = code if code in (2, 3) else 3
        self._stop()

    def _end(self, generation: Generation, context: Context, how: str = "stop") -> None:
        """Have a context "stop" or "quit", and kill it if it takes too long."""
        context.leaving = True
        patience = exits.patience(self._config, hurry=how == "quit")
        context.kill_at = time.monotonic() + patience + _KILL_MARGIN
        generation.tell(context, how)

    def _known(self) -> set[int]:
        """Every child that this knows of: hosts, and contexts that are processes."""
        found = set(self._strangers)
        for generation in self._generations:
            found |= generation.processes()
        return found

    def _leave(self, generation: Generation, how: str = "stop") -> None:
        """End a generation: its contexts, and the host after them."""
        generation.leaving = True
        generation.waiting.clear()
        if generation.channel.pending:
            generation.channel.drop_sockets()  # Orders for contexts that nobody needs any more.
        for context in generation.contexts.values():
            self._end(generation, context, how)
        if not generation.pid:
            return
        # The last resort, if it does not even end its contexts.
        latest = max((c.kill_at for c in generation.contexts.values()), default=time.monotonic())
        generation.kill_at = latest + _KILL_MARGIN
        if not messages.send(generation.channel, messages.Leave()) or not generation.loaded:
            family.send(generation.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Learn which hosts and contexts ended."""
        for generation in list(self._generations):
            if generation.pid and (code := family.exit_code_of_child(generation.pid)) is not None:
                self._on_host_ended(generation, code)
            if generation.place == "processes":
                self._reap_contexts(generation)
            if not generation.pid and not generation.contexts:
                generation.channel.close()
                self._generations.remove(generation)
        # Who has ended gives the number back, perhaps to a context.
        self._strangers = {pid for pid in self._strangers if family.is_child(pid)}
        # A context may have ended before its host's word of it is heard: it stays to be found then.
        if not any(generation.starting for generation in self._generations) and (
            self._alone or threading.active_count() == 1  # Else they may be somebody's.
        ):
            # Before it was a command, its process may have been a shell's: nobody waits for those.
            family.reap_orphans(self._known() - (self._strangers if self._alone else set()))

    def _reap_contexts(self, generation: Generation) -> None:
        ended = [
            (context, code)
            for context in generation.contexts.values()
            if (code := family.exit_code_of_child(context.key)) is not None
        ]
        if ended:
            self._hear(generation)  # Their last words.
        for context, code in ended:
            del generation.contexts[context.key]
            if generation.pid:
                messages.send(generation.channel, messages.Gone(context.key))
            self._on_ended(generation, context, code)

    def _on_host_ended(self, generation: Generation, code: int) -> None:
        pid, threads = generation.pid, generation.place != "processes"
        for _ in range(_TURNS_OF_WORDS):
            if not self._hear(generation):  # It may have said who started, or why it ends.
                break
        generation.pid = 0
        if threads:
            for context in generation.contexts.values():
                self._seats.give(context.seat)
            generation.contexts.clear()
        for _, seat in generation.starting:
            self._seats.give(seat)
        generation.starting.clear()
        generation.waiting.clear()
        if self._stopping or generation.leaving:
            return
        if generation.opened:
            # One that only forks takes its place. Not before its end: what it opened may be of a
            # kind that is there once.
            self._start_generation(
                dataclasses.replace(self._config, load="each", interface=generation.opened)
            )
            return
        if not generation.loaded or not generation.served:
            self._give_up(generation, "the application could not be loaded", code)
            return
        if threads:
            logger.error("Host [%d] ended with %d and took its contexts along", pid, code)
        else:
            logger.error("Host [%d] ended with %d: its contexts serve until others do", pid, code)
        self._start_generation()

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._quiet_at and self._quiet_at <= now:
            self._be_quiet()
        if self._start_at and self._start_at <= now:
            self._start_generation()
        logs.reopen_again(now)
        for generation in self._generations:
            for slot, when in list(generation.waiting.items()):
                if when <= now:
                    del generation.waiting[slot]
                    if slot < self._slots:
                        self._spawn(generation, slot)
        if self._reload_again and not self._stopping and not self._is_changing():
            self._reload_again = False
            self._on_reload()
        for generation in list(self._generations):
            generation.channel.flush()
            if self._is_starting(generation) and generation.progress_at <= now:
                generation.say_progress(now, self._slots)
            if (limit := self._reload_until(generation)) and limit <= now:
                seconds = self._config.timeout_reload
                self._give_up(generation, f"it took longer than {seconds:g} seconds", 1)
            for context in generation.contexts.values():
                if context.kill_at and context.kill_at <= now:
                    logger.error("Context [%d] did not end in time: killed", context.key)
                    context.kill_at = now + _KILL_MARGIN
                    generation.kill_context(context, self._stopping)
            if generation.pid and generation.kill_at and generation.kill_at <= now:
                logger.error("Host [%d] did not end in time: killed", generation.pid)
                generation.kill_at = now + _KILL_MARGIN
                family.send(generation.pid, signal.SIGKILL)

    def _is_starting(self, generation: Generation) -> bool:
        return not (generation.served or generation.leaving or self._stopping)

    def _reload_until(self, generation: Generation) -> float:
        """When a reload that ``generation`` is for has failed; 0 for never."""
        limit = self._config.timeout_reload
        if not limit or generation.served or generation.leaving or not self._announced:
            return 0.0
        return generation.started + limit

    # Signals.

    def _stop(self, how: str = "stop") -> None:
        self._stopping = True
        self._start_at = 0.0
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
                generation.kill_all()
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
        elif self._is_changing():
            left = max((self._reload_until(g) for g in self._generations), default=0.0)
            logger.info(
                "Still starting or reloading: reloading once more after that%s",
                f", in {left - time.monotonic():.0f} s at the latest" if left else "",
            )
            self._reload_again = True
        else:
            logger.info("Reloading")
            self._start_generation()

    def _is_changing(self) -> bool:
        """Whether a generation starts, or will, or ends: three at once would be too many."""
        newest = self._newest
        return len(self._generations) != 1 or newest is None or not newest.served

    def _on_reopen(self) -> None:
        logs.reopen()
        for generation in self._generations:
            if generation.pid:
                messages.send(generation.channel, messages.Reopen())
            if generation.place == "processes":
                for context in generation.contexts.values():
                    generation.tell(context, "reopen")

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
        if self._stopping or newest is None or len(self._generations) > 1:
            return
        if not newest.served or not newest.pid:
            return
        while self._wanted > self._slots and newest.is_settled(self._slots):
            try:
                self._listeners.take(self._slots)
            except (PPServerError, OSError) as error:
                logger.error("No further context: %s", error)
                self._wanted = self._slots
                return
            self._slots += 1
            logger.info("Contexts: %d", self._slots)
            self._spawn(newest, self._slots - 1)
        while self._wanted < self._slots and newest.is_settled(self._slots - 1):
            self._slots -= 1
            logger.info("Contexts: %d", self._slots)
            newest.waiting.pop(self._slots, None)
            self._listeners.quiesce(self._slots)
            for context in newest.in_slot(self._slots):
                self._end(newest, context)


def _pause(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return float(min(_BACKOFF_FIRST * 2 ** (min(failures, 20) - 1), _BACKOFF_MAX))
