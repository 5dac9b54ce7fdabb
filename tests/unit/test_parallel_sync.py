"""Critical sections and reader/writer locks, with real threads and no sleeping."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from parallel import sync

SECONDS = 30  # No test waits so long unless it fails.


class Thing:
    pass


class Worker:
    """A thread that does one thing after another."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def begin(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._pool.submit(function, *args)

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.begin(function, *args).result(SECONDS)

    def end(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    workers = [Worker() for _ in range(3)]
    yield workers
    for worker in workers:
        worker.end()


def until_waiting(obj: Any, count: int = 1) -> None:
    """Until ``count`` threads wait for the lock of ``obj``, as its condition knows."""
    changed = sync._lock_of(obj)._changed
    while True:
        with changed:
            if len(changed._waiters) == count:  # type: ignore[attr-defined]
                return
        os.sched_yield()


# Critical sections.


def raced(section: Callable[[Callable[[], None]], Callable[[], None]]) -> int:
    """What four threads count together, each step guarded by ``section``."""
    total = 0

    def step() -> None:
        nonlocal total
        seen = total
        os.sched_yield()
        total = seen + 1

    guarded = section(step)

    def work() -> None:
        for _ in range(200):
            guarded()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result(SECONDS)
    return total


def test_critical_section() -> None:
    assert raced(sync.critical_section) == 800
    assert raced(sync.critical_section()) == 800
    assert raced(sync.synchronized) == 800

    def with_block(step: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            with sync.critical_section:
                step()

        return guarded

    assert raced(with_block) == 800
    assert repr(sync.critical_section) == "<parallel.critical_section>"


def test_critical_section_is_one(workers: list[Worker]) -> None:
    @sync.critical_section
    def inside() -> str:
        return "inside"

    with sync.critical_section, sync.critical_section():
        assert inside() == "inside"
        waiting = workers[0].begin(inside)
        with pytest.raises(TimeoutError):
            waiting.result(0)
    assert waiting.result(SECONDS) == "inside"


def test_synchronized_is_per_function(workers: list[Worker]) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Counter:
        @sync.synchronized
        def slow(self) -> str:
            """Waits."""
            entered.set()
            assert leave.wait(SECONDS)
            return "slow"

        @sync.synchronized
        def fast(self, depth: int = 1) -> str:
            return self.fast(depth - 1) if depth else "fast"

    assert (Counter.slow.__name__, Counter.slow.__doc__) == ("slow", "Waits.")
    first = workers[0].begin(Counter().slow)
    assert entered.wait(SECONDS)
    second = workers[1].begin(Counter().slow)  # Another instance, the same function.
    assert workers[2].do(Counter().fast) == "fast"
    with pytest.raises(TimeoutError):
        second.result(0)
    leave.set()
    assert (first.result(SECONDS), second.result(SECONDS)) == ("slow", "slow")


def test_sections_are_left_by_exceptions(workers: list[Worker]) -> None:
    @sync.synchronized
    def fail(really: bool) -> None:
        if really:
            raise LookupError

    with pytest.raises(LookupError):
        fail(True)
    workers[0].do(fail, False)
    with contextlib.suppress(LookupError), sync.critical_section:
        raise LookupError
    workers[0].do(sync.critical_section(lambda: None))


def test_what_cannot_be_guarded() -> None:
    async def coroutine() -> None:
        pass

    def generator() -> Iterator[int]:
        yield 1

    for decorator in (sync.synchronized, sync.critical_section):
        with pytest.raises(TypeError, match="expected a function, not int"):
            decorator(3)  # type: ignore[arg-type]
        for function in (coroutine, generator):
            with pytest.raises(TypeError, match="runs after its call has returned"):
                decorator(function)


# Protection.


def test_protection() -> None:
    thing = Thing()
    assert not sync.protected(thing)
    assert sync.protect(thing) is thing
    assert sync.protected(thing)
    sync.read_lock(thing)
    assert sync.protect(thing) is thing  # Again changes nothing.
    with pytest.raises(RuntimeError, match="lock is held"):
        sync.unprotect(thing)
    sync.read_unlock(thing)
    assert sync.unprotect(thing) is thing
    assert not sync.protected(thing)


@pytest.mark.parametrize(
    "function",
    [
        sync.read_lock,
        sync.read_unlock,
        sync.try_read_lock,
        sync.write_lock,
        sync.write_unlock,
        sync.try_write_lock,
        sync.unprotect,
    ],
)
def test_unprotected(function: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"the Thing is not protected: parallel\.protect"):
        function(Thing())


def test_protection_ends_with_the_object() -> None:
    thing = sync.protect(Thing())
    key, gone = id(thing), weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
    assert key not in sync._entries


def test_an_object_in_a_cycle() -> None:
    thing: Any = sync.protect(Thing())
    thing.itself = thing
    key = id(thing)
    del thing
    gc.collect()
    assert key not in sync._entries


def test_an_object_without_weak_references() -> None:
    items = [1, 2]
    key = id(sync.protect(items))
    del items
    gc.collect()
    assert sync._entries[key].get() == [1, 2]
    sync.unprotect(sync._entries[key].get())
    assert key not in sync._entries


def test_equal_objects_have_their_own_locks() -> None:
    one, other = sync.list([1]), sync.list([1])
    assert one == other
    sync.write_lock(one)
    assert sync.try_write_lock(other)
    sync.write_unlock(one)
    sync.write_unlock(other)


def test_protected_types() -> None:
    thing = sync.object(a=1)
    thing.b = 2
    assert (thing.a, thing.b) == (1, 2)
    with pytest.raises(AttributeError):
        assert thing.c
    mapping = sync.dict({"a": 1}, b=2)
    assert mapping == {"a": 1, "b": 2}
    items = sync.list("ab")
    assert items == ["a", "b"]
    assert sync.dict() == {}
    assert sync.list() == []
    for obj in (thing, mapping, items):
        assert sync.protected(obj)
        assert weakref.ref(obj)() is obj
        for other in (copy.copy(obj), copy.deepcopy(obj), pickle.loads(pickle.dumps(obj))):
            assert type(other) is type(obj)
            assert sync.protected(other)
            assert getattr(other, "__dict__", None) == getattr(obj, "__dict__", None)
    assert copy.copy(mapping) == mapping
    assert copy.copy(items) == items


# Reader/writer locks.


def test_many_readers_or_one_writer(workers: list[Worker]) -> None:
    obj = sync.object()
    first, second, third = workers
    first.do(sync.read_lock, obj)
    second.do(sync.read_lock, obj)
    assert not third.do(sync.try_write_lock, obj)
    assert third.do(sync.try_read_lock, obj)
    for worker in workers:
        worker.do(sync.read_unlock, obj)
    first.do(sync.write_lock, obj)
    assert not second.do(sync.try_read_lock, obj)
    assert not second.do(sync.try_write_lock, obj)
    assert not first.do(sync.try_write_lock, obj)
    assert not first.do(sync.try_read_lock, obj)
    first.do(sync.write_unlock, obj)
    assert second.do(sync.try_write_lock, obj)
    second.do(sync.write_unlock, obj)


def test_readers_wait_for_the_writer(workers: list[Worker]) -> None:
    obj = sync.object()
    workers[0].do(sync.write_lock, obj)
    waiting = [worker.begin(sync.read_lock, obj) for worker in workers[1:]]
    until_waiting(obj, 2)
    workers[0].do(sync.write_unlock, obj)
    for future in waiting:
        future.result(SECONDS)
    assert not workers[0].do(sync.try_write_lock, obj)


def test_writers_come_first(workers: list[Worker]) -> None:
    obj = sync.object()
    reader, writer, late = workers
    reader.do(sync.read_lock, obj)
    writing = writer.begin(sync.write_lock, obj)
    until_waiting(obj)
    assert not late.do(sync.try_read_lock, obj)
    reader.do(sync.read_lock, obj)  # Who reads already may again, or would wait for himself.
    late_reading = late.begin(sync.read_lock, obj)
    until_waiting(obj, 2)
    reader.do(sync.read_unlock, obj)
    assert not writing.done()
    reader.do(sync.read_unlock, obj)
    writing.result(SECONDS)
    assert not late_reading.done()
    writer.do(sync.write_unlock, obj)
    late_reading.result(SECONDS)
    late.do(sync.read_unlock, obj)
    sync.unprotect(obj)


def test_mistakes(workers: list[Worker]) -> None:
    obj = sync.object()
    with pytest.raises(RuntimeError, match="does not hold the lock for reading"):
        sync.read_unlock(obj)
    with pytest.raises(RuntimeError, match="does not hold the lock for writing"):
        sync.write_unlock(obj)
    sync.read_lock(obj)
    with pytest.raises(RuntimeError, match="holds the lock for reading"):
        sync.write_lock(obj)
    assert not sync.try_write_lock(obj)
    with pytest.raises(RuntimeError, match="does not hold"):
        workers[0].do(sync.read_unlock, obj)
    sync.read_unlock(obj)
    sync.write_lock(obj)
    for lock in (sync.read_lock, sync.write_lock):
        with pytest.raises(RuntimeError, match="holds the lock for writing"):
            lock(obj)
    with pytest.raises(RuntimeError, match="does not hold"):
        workers[0].do(sync.write_unlock, obj)
    sync.write_unlock(obj)


def test_an_interrupted_writer_lets_readers_go_on() -> None:
    obj = sync.object()
    lock = sync._lock_of(obj)
    lock._readers[-1] = 1  # A thread that is not this one.
    interrupted = False

    class Interrupted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal interrupted
            interrupted = True
            raise KeyboardInterrupt

    lock._changed = Interrupted(threading.Lock())
    with pytest.raises(KeyboardInterrupt):
        sync.write_lock(obj)
    assert interrupted
    assert sync.try_read_lock(obj)


def test_a_race_of_readers_and_writers() -> None:
    obj = sync.object(left=0, right=0)

    def write() -> None:
        for _ in range(100):
            sync.write_lock(obj)
            obj.left += 1
            os.sched_yield()
            obj.right += 1
            sync.write_unlock(obj)

    def read() -> None:
        for _ in range(100):
            sync.read_lock(obj)
            assert obj.left == obj.right
            sync.read_unlock(obj)

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(each) for each in (write, read) * 3]:
            future.result(SECONDS)
    assert (obj.left, obj.right) == (300, 300)


def test_a_fork_frees_what_others_hold(workers: list[Worker]) -> None:
    mine, others = sync.object(), sync.object()

    @sync.synchronized
    def guarded() -> int:
        return 7

    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with sync.critical_section:
            entered.set()
            assert leave.wait(SECONDS)

    sync.write_lock(mine)
    workers[0].do(sync.write_lock, others)
    holding = workers[2].begin(hold)
    assert entered.wait(SECONDS)
    section = sync.critical_section._section
    before = section._lock
    sync._after_fork()  # What a child does; without one, since a fork beside threads warns.
    try:
        assert section._lock is not before
        with sync.critical_section:
            assert guarded() == 7
        assert sync.try_write_lock(others)
        assert not workers[1].do(sync.try_read_lock, mine)
        sync.write_unlock(mine)
    finally:
        section._lock = before
        leave.set()
    holding.result(SECONDS)


# Events.


def test_events() -> None:
    event = threading.Event()
    assert sync.prewait(event) is event
    assert not event.is_set()
    sync.signal(event)
    assert event.wait(0)
    for function in (sync.prewait, sync.signal):
        with pytest.raises(TypeError, match=r"expected a threading\.Event, not object"):
            function(object())
