"""Work beside the callbacks: on threads of the process, at a time, when an event is set.

Each ``submit_*`` returns a `Job` at once. Its function runs on a thread of a pool. On that thread,
its result goes to ``callback(result)``, what it raises to ``errback(exception)``, or is logged.
What is submitted in a context lives and dies with it.

In the main program, before anything serves, work and I/O begin at once and are waited for by
``run()``; timers and waits begin with ``run()`` or, if there are servers, with the first context.
"""

from __future__ import annotations

import builtins
import heapq
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from parallel import files, stats, system

__all__ = [
    "Job",
    "map",
    "submit_io",
    "submit_read_io",
    "submit_timer",
    "submit_wait",
    "submit_work",
    "submit_write_io",
]

T = TypeVar("T")

logger = logging.getLogger("ppserver.error")

_IO_THREADS = 32
_WAITS_MAX = 1000
_LOOK_SECONDS = 1.0


class Job:
    """Something submitted. It is over when its callback or errback has returned."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] | None,
        kwds: Mapping[str, Any] | None,
        callback: Callable[[Any], Any] | None,
        errback: Callable[[BaseException], Any] | None,
    ) -> None:
        for name, given in (("function", function), ("callback", callback), ("errback", errback)):
            if not callable(given) and (given is not None or name == "function"):
                raise TypeError(f"{name}: expected a callable, not {type(given).__name__}")
        self._call = (function, tuple(args or ()), dict(kwds or {}))
        self._callback = callback
        self._errback = errback
        self._lock = threading.Lock()
        self._taken = False
        self.pooled = False  # begun, or about to: what has to end before a fork
        _Active.add(self)

    def cancel(self) -> bool:
        """See to it that it does not begin; False if it has."""
        with self._lock:
            taken, self._taken = self._taken, True
        if not taken:
            _Active.remove(self)
        return not taken

    @property
    def is_taken(self) -> bool:
        """Whether it has begun, or is withdrawn."""
        return self._taken

    def _run(self) -> None:
        with self._lock:
            if self._taken:
                return
            self._taken = True
        try:
            self._carry_out()
        except BaseException as error:
            logger.error("What was submitted failed", exc_info=error)
        finally:
            _Active.remove(self)

    def _carry_out(self) -> None:
        function, args, kwds = self._call
        try:
            result = function(*args, **kwds)
        except Exception as error:
            if self._errback is None:
                raise
            self._errback(error)
        else:
            if self._callback is not None:
                self._callback(result)


class _Active:
    """What is submitted and not over."""

    jobs: set[Job] = set()  # noqa: RUF012
    changed = threading.Condition()

    @classmethod
    def add(cls, job: Job) -> None:
        with cls.changed:
            cls.jobs.add(job)

    @classmethod
    def remove(cls, job: Job) -> None:
        with cls.changed:
            cls.jobs.discard(job)
            cls.changed.notify_all()


class _Pool:
    """Threads that are started as they are needed, up to a number, and kept."""

    def __init__(self, name: str, most: Callable[[], int]) -> None:
        self._name = name
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Forget everything, as in a forked process, where the threads are not."""
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: builtins.list[threading.Thread] = []
        self._lock = threading.Lock()
        self._free = 0

    def submit(self, job: Job) -> Job:
        """Have it run. Raises RuntimeError if there is no thread for it; then it is withdrawn."""
        job.pooled = True
        try:
            self.put(job._run)
        except BaseException:
            job.cancel()
            raise
        return job

    def put(self, run: Callable[[], None]) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif len(self._threads) < self._most():
                name = f"parallel {self._name} {len(self._threads) + 1}"
                thread = threading.Thread(target=self._live, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._queue.put(run)

    def _live(self) -> None:
        system.mark_parallel(True)
        while (run := self._queue.get()) is not None:
            run()
            with self._lock:
                # Too few at times, never too many: then there is a thread more than needed.
                self._free += self._queue.empty()

    def stop(self) -> None:
        """End the threads, each after what it is at."""
        with self._lock:
            threads, self._threads, self._free = self._threads, [], 0
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()


class _Timers:
    """A thread that gives jobs to the pool when their time has come."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._changed = threading.Condition()
        self._heap: builtins.list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def put(self, due: float, job: Job) -> None:
        with self._changed:
            heapq.heappush(self._heap, (due, next(self._numbers), job))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._live, name="parallel timers", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def _live(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    left = self._heap[0][0] - time.monotonic() if self._heap else None
                    self._changed.wait(left)
                _, _, job = heapq.heappop(self._heap)
            _work.put(job._run)


class _Stage:
    """Whether timers and waits begin, and whether anything may be submitted."""

    waits: builtins.list[tuple[Job, Callable[[], None]]] = []  # noqa: RUF012  and what begins each
    begun = False
    refusal = ""


_work = _Pool("work", lambda: max(4, stats.cpu_count()))
_io = _Pool("I/O", lambda: _IO_THREADS)
_timers = _Timers()
_waiting: set[Job] = set()


def submit_work(
    function: Callable[..., Any],
    args: Sequence[Any] | None = None,
    kwds: Mapping[str, Any] | None = None,
    callback: Callable[[Any], Any] | None = None,
    errback: Callable[[BaseException], Any] | None = None,
) -> Job:
    """Call ``function(*args, **kwds)`` on a thread: as many at a time as there are CPUs, four at
    least. Raises TypeError for what is not callable."""
    _check_stage()
    return _work.submit(Job(function, args, kwds, callback, errback))


def submit_io(
    function: Callable[..., Any],
    args: Sequence[Any] | None = None,
    kwds: Mapping[str, Any] | None = None,
    callback: Callable[[Any], Any] | None = None,
    errback: Callable[[BaseException], Any] | None = None,
) -> Job:
    """As `submit_work`, for what waits more than it computes: up to 32 at a time, on threads of
    their own."""
    _check_stage()
    return _io.submit(Job(function, args, kwds, callback, errback))


def submit_read_io(
    file: Any,
    nbytes: int = -1,
    callback: Callable[[bytes], Any] | None = None,
    errback: Callable[[BaseException], Any] | None = None,
    *,
    offset: int | None = None,
) -> Job:
    """`parallel.read` by `submit_io`: the callback gets the bytes."""
    return submit_io(files.read, (file, nbytes, offset), None, callback, errback)


def submit_write_io(
    file: Any,
    data: Any,
    callback: Callable[[int], Any] | None = None,
    errback: Callable[[BaseException], Any] | None = None,
    *,
    offset: int | None = None,
) -> Job:
    """`parallel.write` by `submit_io`: the callback gets the number of bytes."""
    return submit_io(files.write, (file, data, offset), None, callback, errback)


def submit_timer(
    seconds: float,
    function: Callable[..., Any],
    args: Sequence[Any] | None = None,
    kwds: Mapping[str, Any] | None = None,
    callback: Callable[[Any], Any] | None = None,
    errback: Callable[[BaseException], Any] | None = None,
) -> Job:
    """Call a function so many seconds from now, as `submit_work` does. For more than once, it
    submits the next. Raises ValueError for a time that is negative or none."""
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"seconds: expected 0 or more, got {seconds!r}")
    _check_stage()
    due = time.monotonic() + seconds
    job = Job(function, args, kwds, callback, errback)
    _begin(job, lambda: _timers.put(due, job))
    return job


def submit_wait(
    event: Any,
    function: Callable[..., Any],
    args: Sequence[Any] | None = None,
    kwds: Mapping[str, Any] | None = None,
    callback: Callable[[Any], Any] | None = None,
    errback: Callable[[BaseException], Any] | None = None,
    *,
    timeout: float | None = None,
) -> Job:
    """Call a function once ``event``, a ``threading.Event`` or the like, is set.

    After ``timeout`` seconds the errback gets a TimeoutError instead. Every wait has a thread:
    RuntimeError beyond 1000 of them. Raises TypeError for what is no event.
    """
    if not callable(getattr(event, "wait", None)):
        raise TypeError(f"event: expected a threading.Event, not {type(event).__name__}")
    _check_stage()
    came = False

    def when_set(*given: Any, **named: Any) -> Any:
        if not came:
            raise TimeoutError(f"the event was not set within {timeout} s")
        return function(*given, **named)

    if len(_waiting) >= _WAITS_MAX:
        raise RuntimeError(f"more than {_WAITS_MAX} waits at a time")
    job = Job(when_set, args, kwds, callback, errback)
    waiting = _waiting  # After a fork there is another one.
    waiting.add(job)

    def wait() -> None:
        nonlocal came
        system.mark_parallel(True)
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while not (came or job.is_taken):  # Now and then it looks whether it is withdrawn.
                left = _LOOK_SECONDS if end is None else min(end - time.monotonic(), _LOOK_SECONDS)
                came = bool(event.wait(max(left, 0.0)))
                if end is not None and time.monotonic() >= end:
                    break
            job._run()
        finally:
            waiting.discard(job)

    def start() -> None:  # A thread that was made before a fork cannot be started after it.
        threading.Thread(target=wait, name="parallel wait", daemon=True).start()

    _begin(job, start)
    return job


def map(  # noqa: A001 (the name is PyParallel's)
    function: Callable[..., T], *iterables: Iterable[Any]
) -> builtins.list[T]:
    """The results of a function for each item, in order, from as many threads as there are CPUs.

    The calling thread does its part, so it may be a callback or work itself. What a call raises is
    raised here, the first in order, when all that have begun are over.
    """
    calls = builtins.list(zip(*iterables, strict=False))
    if _Stage.refusal:  # No threads here, so that contexts can be forked.
        return [function(*call) for call in calls]
    results: builtins.list[Any] = [None] * len(calls)
    errors: builtins.dict[int, BaseException] = {}
    numbers = iter(range(len(calls)))
    lock = threading.Lock()

    def some() -> None:
        while not errors:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results[number] = function(*calls[number])
            except BaseException as error:
                errors[number] = error

    over: queue.SimpleQueue[None] = queue.SimpleQueue()
    helpers = [
        submit_work(some, callback=over.put) for _ in range(min(stats.cpu_count(), len(calls)) - 1)
    ]
    some()
    for job in helpers:
        if not job.cancel():  # Those that have not begun have nothing left to do.
            over.get()
    if errors:
        raise errors[min(errors)]
    return results


# ---- for the runtime ----


def _check_stage() -> None:
    if _Stage.refusal:
        raise RuntimeError(_Stage.refusal)


def _begin(job: Job, run: Callable[[], None]) -> None:
    with _Active.changed:
        if not _Stage.begun:
            _Stage.waits.append((job, run))
            return
    run()


def pending() -> int:
    """How many jobs are not over."""
    return len(_Active.jobs)


def has_begun() -> bool:
    """Whether timers and waits begin at once here."""
    return _Stage.begun


def begin() -> None:
    """Timers and waits begin here and now, also those submitted before."""
    with _Active.changed:
        waits, _Stage.waits, _Stage.begun, _Stage.refusal = _Stage.waits, [], True, ""
    for _, run in waits:
        run()


def begin_elsewhere() -> None:
    """Another context has taken over what was submitted before; here only new ones begin."""
    with _Active.changed:
        _Stage.waits, _Stage.begun, _Stage.refusal = [], True, ""
        _Active.jobs.clear()
        _waiting.clear()


def settle(refusal: str = "") -> None:
    """Wait for work and I/O, and end their threads, so that the process may fork. Then, with a
    reason, submitting is refused here."""
    with _Active.changed:
        while any(job.pooled for job in _Active.jobs):
            _Active.changed.wait(0.5)  # It may be the main thread: a signal must get through.
    for pool in (_work, _io):
        pool.stop()
    _Stage.refusal = refusal


def run_until_idle() -> None:
    """Carry out what is submitted, and what that submits, until nothing is left."""
    begin()
    with _Active.changed:
        while _Active.jobs:
            _Active.changed.wait(0.5)  # As above.


def _after_fork() -> None:
    """In the child: none of the threads is here, but what has not begun is."""
    global _waiting
    _Active.changed = threading.Condition()
    _waiting = set(_waiting)
    for each in (_work, _io, _timers):
        each.reset()


os.register_at_fork(after_in_child=_after_fork)
