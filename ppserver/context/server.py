"""One context's life: load, start, serve, drain, stop.

An ASGI application runs on the loop's thread, beside the C core: on an event loop of our own the
core *is* the selector, under uvloop or a loop somebody else runs it is attached by its epoll
descriptor. A WSGI application runs with the core on a thread of its own that knows no asyncio;
the main thread's loop then only handles signals and time. So both share one course of life.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

from ppserver._native import CORE_SETTINGS, Core
from ppserver.app import hooks
from ppserver.app.lifespan import Lifespan
from ppserver.app.loader import load, recognise
from ppserver.app.programs import Program, Running
from ppserver.config import Config
from ppserver.config.proxy import TrustedProxies
from ppserver.context import eventloop, exits, watchdog
from ppserver.context.listeners import Listeners
from ppserver.context.main_thread import LoopErrands
from ppserver.context.seats import Seat
from ppserver.context.wiring import Report, Supervision, Wiring
from ppserver.errors import PPServerError
from ppserver.machine import directory, handlers, terminal
from ppserver.observe import logs, readiness
from ppserver.types import Stats

logger = logging.getLogger("ppserver.error")

_DRAIN_BEGINS_WITHIN = 2.0


_Answer = TypeVar("_Answer")

_asgi_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _nothing() -> None:
    pass


def make_core(config: Config, seat: Seat | None = None) -> Core:
    """A Core with the options of ``config``. It belongs to the thread that makes it.

    On a ``seat`` it writes its load to the board.
    """
    options: dict[str, Any] = {name: getattr(config, name) for name in CORE_SETTINGS}
    options.update(headers=config.response_headers, **logs.access_options(config))
    if config.proxy_headers:
        options["trusted_proxies"] = TrustedProxies(config.forwarded_allow_ips).packed()
    if seat is None:
        return Core(**options)
    return Core(**options, board=seat.board, slot=seat.index)


class Server:
    """Serves one application in this process.

    ``run()`` blocks and owns its event loop; ``await serve()`` runs inside a loop that is already
    running; ``startup()`` and ``shutdown()`` are its two halves, and what ``async with`` does. In
    the main thread ``run()`` and ``serve()`` handle signals meanwhile; elsewhere set
    ``should_exit``, from any thread. A server serves once: a second ``run()``, ``serve()`` or
    ``startup()`` raises RuntimeError.
    """

    def __init__(self, config: Config, *, _wiring: Wiring | None = None) -> None:
        wiring = Wiring() if _wiring is None else _wiring
        self.config = config = recognise(config) if wiring.application is None else config
        self.started = False
        self.exit_code = 0
        self.core: Core | None = None
        self.listeners = wiring.listeners
        self._application = wiring.application
        self._listening = wiring.listening
        self._supervision = wiring.supervision
        self._seat = wiring.seat
        self._make_application = wiring.make_application
        self._owns_process = wiring.owns_process
        self._lifespan: Lifespan | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._thread_done: asyncio.Future[None] | None = None
        self._should_exit = False
        self._hurry = False
        self._told_at = 0.0
        self._woken = asyncio.Event()
        self._core_lock = threading.Lock()
        self._attached = False
        self._listens = False
        self._owns_core_loop = False
        self._loaded_here = False  # and on_start ran here
        self._context_began = False
        self._watchdog: watchdog.Watchdog | None = None
        self._called: set[str] = set()
        self._max_requests = 0
        if config.limit_max_requests:
            jitter = random.randint(0, config.limit_max_requests_jitter)
            self._max_requests = config.limit_max_requests + jitter

    @property
    def should_exit(self) -> bool:
        """Set it to True, from any thread or a signal handler, to begin a graceful shutdown."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        self._wake()

    @property
    def urls(self) -> list[str]:
        """Where it listens; empty until it does."""
        return list(self.listeners.urls) if self.listeners is not None else []

    def exit_now(self) -> None:
        """Shut down without waiting for running requests, from any thread."""
        self._hurry = True
        self.should_exit = True

    def stats(self) -> Stats:
        """The context's counters and gauges; empty before the start and after the end."""
        return cast(Stats, self._counters())

    def _counters(self) -> dict[str, int]:
        return self._with_core(lambda core: core.stats(), {})

    async def __aenter__(self) -> Self:
        """Serve within the running loop while the block runs: ``startup()``."""
        try:
            await self.startup()
        except BaseException:
            await self.shutdown()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    def _once(self, method: str, *within: str) -> None:
        """This method begins: RuntimeError if it has before, or one that it is called within."""
        if not self._called.isdisjoint((method, *within)):
            raise RuntimeError("a Server serves once: make another one")
        self._called.add(method)

    def run(self) -> int:
        """Serve until told to stop; the exit code. Raises PPServerError if it cannot start."""
        self._once("run", "serve", "startup")
        if self._supervision is None:
            logs.configure(self.config)
        try:
            self._prepare()
            with asyncio.Runner(loop_factory=self._loop_factory()) as runner:
                runner.run(self.serve())
        finally:
            self._close()
        return self.exit_code

    async def serve(self) -> None:
        """Serve within the running loop until told to stop.

        Raises PPServerError if it cannot start.
        """
        self._once("serve", "startup")
        with self._signals():
            try:
                await self.startup()
                if self.started:
                    await self._until_exit()
            finally:
                await self.shutdown()

    async def startup(self) -> None:
        """Open sockets, load and start the application, begin to accept.

        Raises PPServerError; then, too, ``shutdown()`` is what gives everything back.
        """
        self._once("startup")
        self._loop = asyncio.get_running_loop()
        logger.info("Started server process [%d]", os.getpid())
        self._prepare()
        assert self._application is not None
        if self._application.interface != "asgi":
            await self._start_wsgi()
        else:
            await self._start_asgi()
        if not self._listens:  # Told to stop before it came to that.
            return
        self.started = True
        if self._thread is None:
            self._watchdog = watchdog.Watchdog(
                self._loop, lambda stuck: self._with_core(lambda core: core._stuck(stuck), None)
            )
        if self._supervision is not None:
            self._supervision.report.ready()
        elif self.listeners is not None:
            logs.announce(self.listeners.urls)
            if self._owns_process:
                readiness.tell(self.listeners.urls)

    async def shutdown(self) -> None:
        """Stop accepting, let running requests end, shut the application down."""
        if self._loop is None:
            return
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        if self._owns_process:
            exits.bound(exits.patience(self.config, hurry=self._hurry))
        if self.started and not self._hurry and self.config.shutdown_delay:
            logger.info("Shutting down in %g s", self.config.shutdown_delay)
            end = time.monotonic() + self.config.shutdown_delay
            while (left := end - time.monotonic()) > 0 and not self._hurry:
                await self._sleep(left)
        started, self.started = self.started, False
        if started or self._thread is not None:
            logger.info("Shutting down")
            await self._drain()
        if self._lifespan is not None:
            least = exits.LIFESPAN_LEAST
            timeout = least if self._hurry else self.config.timeout_graceful_shutdown
            if not await self._lifespan.shutdown(max(timeout, least)):
                self.exit_code = self.exit_code or 1
            self._lifespan = None
        await self._call_stop_hooks()
        if not self._owns_core_loop:
            self._close()
        if self._owns_process:
            exits.bound_rest(self.exit_code)  # Threads of the loop's executor, and what follows.
        logger.info("Finished server process [%d]", os.getpid())
        self._loop = None

    async def _call_start_hooks(self, interface: str) -> None:
        """What the application wants done before this context serves."""
        give_up = self._give_up_start if self._owns_process else None
        with watchdog.Start(self.config.timeout_startup, give_up) as watch:
            await hooks.start_context(self.config, interface, watch.calls)

    def _give_up_start(self) -> None:
        """Called on another thread: this one cannot be interrupted, and its time is up."""
        self._leave_process(3)

    async def _call_stop_hooks(self) -> None:
        """What the application wants done at the end of a context, and of all."""
        succeeded = True
        if self._context_began and self._application is not None:
            self._context_began = False
            succeeded = await hooks.stop_context(self.config, self._application.interface)
        if self._loaded_here:
            self._loaded_here = False
            succeeded = hooks.stop(self.config) and succeeded
        if not succeeded:
            self.exit_code = self.exit_code or 1

    def _prepare(self) -> None:
        """Sockets first (that fails fastest), then the application."""
        if self._listening is None and self.listeners is None:
            self.listeners = Listeners(self.config)
        if self._application is None:
            make = self._make_application
            self._application = load(self.config) if make is None else make()
            if make is None:
                hooks.run(self.config)
                self._loaded_here = True
            if self.listeners is not None and self._application.program is not None:
                self.listeners.open(self._application.addresses)
        if self._listening is None:
            assert self.listeners is not None
            self._listening = self.listeners.take(0, alone=True)

    def _loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        assert self._application is not None
        if self._application.interface != "asgi":
            return asyncio.SelectorEventLoop
        if eventloop.choose(self.config) == "uvloop":
            return eventloop.uvloop_factory()
        self.core = make_core(self.config, self._seat)
        self._owns_core_loop = True
        selector = self.core.selector()
        return lambda: asyncio.SelectorEventLoop(selector)

    async def _start_asgi(self) -> None:
        assert self._loop is not None
        assert self._application is not None
        app = self._application.call
        lifespan = Lifespan(app, self.config.lifespan)
        starting = asyncio.ensure_future(self._begin(lifespan))
        while not starting.done() and not self._should_exit:
            self._woken.clear()
            waking = asyncio.ensure_future(self._woken.wait())
            await asyncio.wait((starting, waking), return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            return
        starting.result()
        self._lifespan = lifespan
        if self.core is None:
            self.core = make_core(self.config, self._seat)
        # Requests, and whatever the core calls, run in copies of what is current here.
        lifespan.context.copy().run(self._serve_asgi, self.core, lifespan)
        self._listen(self.core)

    def _serve_asgi(self, core: Core, lifespan: Lifespan) -> None:
        assert self._loop is not None
        assert self._application is not None
        core.serve_asgi(
            self._application.call,
            self._loop,
            state=lifespan.state if lifespan.supported else None,
            root_path=self.config.root_path,
            root_path_mode=self.config.root_path_mode,
            task=self.config.task,
            on_error=logs.log_application_error,
        )
        _asgi_cores.add(core)
        if not self._owns_core_loop:
            core.attach(self._loop)
            self._attached = True

    async def _begin(self, lifespan: Lifespan) -> None:
        self._context_began = True
        await self._call_start_hooks("asgi")
        await lifespan.startup(self.config.timeout_startup)

    async def _start_wsgi(self) -> None:
        assert self._loop is not None
        assert self._application is not None
        self._context_began = True
        await self._call_start_hooks(self._application.interface)
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread_done = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._wsgi_thread,
            args=(self._loop, ready, self._thread_done),
            name="ppserver",
            daemon=True,
        )
        self._thread.start()
        await ready

    def _wsgi_thread(
        self,
        loop: asyncio.AbstractEventLoop,
        ready: asyncio.Future[None],
        done: asyncio.Future[None],
    ) -> None:
        """A context's thread without asyncio: it makes the core, so it owns it, and runs it."""
        core = running = None
        assert self._application is not None
        program = self._application.program
        try:
            core = make_core(self.config, self._seat)
            if program is not None:
                core.serve_parallel(
                    program.table(),
                    threads=self.config.threads,
                    on_error=logs.log_protocol_error,
                )
            else:
                core.serve_wsgi(
                    self._application.call,
                    root_path=self.config.root_path,
                    root_path_mode=self.config.root_path_mode,
                    threads=self.config.threads,
                    multiprocess=self._supervision is not None and self._supervision.multiprocess,
                    on_error=logs.log_application_error,
                    spool_dir=directory.for_spooling(),
                    spool_size=self.config.spool_size,
                )
            self._listen(core)
            self.core = core
            if program is not None:
                running = self._tell_began(program, core, loop)
            loop.call_soon_threadsafe(_settle, ready, None)
            core.run_wsgi()
            failure = None
        except BaseException as error:
            failure = error
        if program is not None and running is not None:
            program.context_ended(running)
        with self._core_lock:
            self.core = None
            if core is not None:
                core.close()
        with contextlib.suppress(RuntimeError):  # The loop may be gone after a forced end.
            loop.call_soon_threadsafe(_settle, ready, failure)
            loop.call_soon_threadsafe(_settle, done, failure)
            loop.call_soon_threadsafe(self._woken.set)

    def _tell_began(self, program: Program, core: Core, loop: asyncio.AbstractEventLoop) -> Running:
        """Tell a program of the parallel API that a context of it serves."""
        supervision = self._supervision or Supervision(Report())
        running = Running(
            core,
            None if self._seat is None else self._seat.board,
            supervision.slot,
            supervision.main or LoopErrands(loop),
            self._stop_server,
        )
        try:
            program.context_began(running)
        except BaseException:
            program.context_ended(running)
            raise
        return running

    def _with_core(self, use: Callable[[Core], _Answer], otherwise: _Answer) -> _Answer:
        """``use(core)`` while nobody closes it; ``otherwise`` if there is none (any more)."""
        with self._core_lock:
            return otherwise if self.core is None else use(self.core)

    def _listen(self, core: Core) -> None:
        """Begin to accept, and to take what other contexts hand over: not before it can serve."""
        self._listens = True
        seat = self._seat
        if seat is not None and seat.doors:
            core.join(seat.inbox, seat.doors, local=seat.local)
        assert self._application is not None
        program = self._application.program
        for listening in self._listening or ():
            core.add_listener(
                listening.socket.fileno(),
                kind=listening.kind,
                tag=listening.tag,
                raw=program is not None and program.is_raw(listening.tag),
            )
            if program is not None:
                program.listens(listening.tag, listening.socket.getsockname())

    def _stop_server(self) -> None:
        """The application wants the server to end, all contexts of it."""
        if self._supervision is not None:
            self._supervision.report.stop()
        else:
            self.should_exit = True

    async def _until_exit(self) -> None:
        """Wait for the end; meanwhile look at the counters now and then."""
        peers = logs.PeerErrors(self._counters)
        busy = watchdog.BusyThreads(self.config.threads)
        next_report = time.monotonic() + peers.interval
        while not self._should_exit:
            await self._sleep(0.1 if self._max_requests else peers.interval)
            if self._thread_done is not None and self._thread_done.done():
                break
            if self._max_requests and self.stats().get("requests", 0) >= self._max_requests:
                self._retire()
            if time.monotonic() >= next_report:
                logs.reopen_again(time.monotonic())
                peers.report()
                busy.look(self._with_core(lambda core: core._waiting(), 0.0))
                next_report = time.monotonic() + peers.interval
        peers.report()

    def _retire(self) -> None:
        """Enough requests: ask for a successor and wait to be stopped, or end."""
        self._max_requests = 0
        logger.info("Reached the limit of requests: ending process [%d]", os.getpid())
        if self._supervision is not None:
            self._supervision.report.retire()
        else:
            self._should_exit = True

    async def _drain(self) -> None:
        """Let requests end, up to the timeout; then end them."""
        timeout = 0.0 if self._hurry else self.config.timeout_graceful_shutdown
        deadline = time.monotonic() + timeout
        if self._owns_process:
            exits.grant(timeout)
        if self.listeners is not None:
            self.listeners.quiesce()
        self._with_core(lambda core: core.drain(), None)
        # First the core takes what waits in the kernel's queues; until then it uses the sockets.
        give_up = max(deadline, time.monotonic() + _DRAIN_BEGINS_WITHIN)
        while not self._with_core(lambda core: core.draining, True):
            if time.monotonic() > give_up or self._hurry:
                break
            await asyncio.sleep(0.001)
        if self.listeners is not None:
            self.listeners.close()
        if self._supervision is not None:
            self._supervision.report.draining()
        pause = 0.002
        while not self._idle() and time.monotonic() < deadline and not self._hurry:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        if not self._idle():
            if not self._hurry:
                logger.error("Requests still running after %g s: connections closed", timeout)
            self._with_core(lambda core: core.stop(), None)
            await self._cancel_requests()
        if self._thread_done is not None:
            await asyncio.wait((self._thread_done,), timeout=2.0)
            if self._thread_done.done() and (failure := self._thread_done.exception()):
                logger.error("The server's thread failed", exc_info=failure)
                self.exit_code = 1
            elif not self._thread_done.done():
                logger.error("A request of the application did not end; left behind")
        elif self._attached:
            self._with_core(lambda core: core.detach(), None)
            self._attached = False

    async def _cancel_requests(self) -> None:
        """End what ASGI requests do still, before the lifespan takes away what they use."""
        await asyncio.sleep(0)  # Some end by themselves, now that their client is gone.
        tasks: list[asyncio.Task[None]] = []
        self._with_core(lambda core: tasks.extend(core.request_tasks or ()), None)
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=exits.CANCELLED_WITHIN)
        if left:
            logger.error("%d cancelled requests of the application do not end", len(left))

    def _idle(self) -> bool:
        if self._thread_done is not None:
            return self._thread_done.done()
        return self._with_core(lambda core: core.drained(), True)

    def _close(self) -> None:
        """Give back what is left. Again is harmless."""
        if self.core is not None and self._thread is None:
            if self._attached:
                self.core.detach()
                self._attached = False
            self.core.close()
            self.core = None
        if self.listeners is not None:
            self.listeners.close()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or less if woken.

        No wake-up is lost: the event is only ever set by a callback of the loop.
        """
        self._woken.clear()
        loop, core = self._loop, self.core
        if self._owns_core_loop and core is not None and loop is not None:
            # asyncio pays for a timer in every turn that there is one.
            core._alarm(min(seconds, 86400.0), lambda: loop.call_soon(self._woken.set))
            try:
                await self._woken.wait()
            finally:
                core._alarm(0.0, None)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def _wake(self) -> None:
        self._call_soon(self._woken.set)

    def _call_soon(self, function: Callable[[], object]) -> None:
        """Have the loop call it, if there is one; from any thread, or a signal handler."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop may just have been closed.
                loop.call_soon_threadsafe(function)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle signals, if this is the main thread; afterwards as before.

        The handlers are ordinary Python ones, so that a second signal is seen even while the
        application blocks the loop. The loop's own handler is there for its side effect, a
        byte in the loop's pipe: without it a signal just before the wait would go unnoticed. Where
        a loop has such a pipe already, for handlers of the program that it runs (or of its own, as
        uvloop), these are not touched.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        handled = [signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1]
        if self._supervision is None:
            handled += [signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU]
        before = {number: signal.getsignal(number) for number in handled}
        pipe = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        for number in handled if pipe < 0 else ():
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, _nothing)
        for number in handled:
            signal.signal(number, handlers.Own(self._on_signal))
        if self._supervision is not None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)  # Blocked when a host forks.
        try:
            yield
        finally:
            for number, handler in before.items():
                if pipe < 0:
                    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                        loop.remove_signal_handler(number)
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self._call_soon(logs.reopen)  # Here it might interrupt who is writing to one.
        elif number == signal.SIGQUIT:
            if self._owns_process:
                exits.bound(exits.patience(self.config, hurry=True))
            self.exit_now()
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            logger.warning("More or fewer contexts need a supervisor: --supervise always")
        elif number == signal.SIGHUP and not terminal.is_gone():
            logger.warning("Reloading needs a supervisor: --supervise always")
        elif not self._should_exit:
            self._told_at = time.monotonic()
            if self._owns_process:  # The application may block the loop for ever.
                exits.bound(exits.patience(self.config))
            self.should_exit = True
        elif (
            self._supervision is None
            and time.monotonic() > self._told_at + terminal.SAME_SIGNAL_SECONDS
        ):
            self._end_at_once()

    def _end_at_once(self) -> None:
        """The second signal: no more waiting."""
        if not self._owns_process:
            self.exit_now()
            return
        logger.warning("Second signal: ending at once")
        self._leave_process(1)

    def _leave_process(self, code: int) -> NoReturn:
        """Without what else happens at the end."""
        if self.listeners is not None:
            self.listeners.close()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _tell_cores() -> None:
    """In a child that somebody has forked off: what serves here is the parent's."""
    for core in list(_asgi_cores):
        core._forked()


os.register_at_fork(after_in_child=_tell_cores)


def _settle(future: asyncio.Future[None], failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    elif isinstance(failure, Exception):
        future.set_exception(failure)
        future.exception()  # Seen: whoever waits raises it, nobody needs a warning.
    else:
        future.set_exception(PPServerError(f"{type(failure).__name__}: {failure}"))
        future.exception()
