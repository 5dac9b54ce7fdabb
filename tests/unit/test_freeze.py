"""Freezing: what becomes immortal, what does not, and that all of it goes on working."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import sys
import sysconfig
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest
from snippets import run_python

import ppserver
from ppserver import _native, freezing
from ppserver.config import Config

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SUPPORTED = (3, 12) <= sys.version_info[:2] <= ((3, 13) if FREE_THREADED else (3, 15))
WHY_NOT = "this version of Python has no immortal objects, or a layout that is not supported yet"
immortal = pytest.mark.skipif(not SUPPORTED, reason=WHY_NOT)

OBJECT_BYTES = object.__basicsize__
serial = iter(range(10**9))


def text() -> str:
    """A string that nobody has seen before and that is not interned."""
    return f"text number {next(serial)}"


class Slots:
    __slots__ = ("one", "two")


Plain = type("Plain", (), {})  # No function in it leads to a module.


def plain(**attributes: Any) -> Any:
    found = Plain()
    found.__dict__.update(attributes)
    return found


def in_order(one: Any, two: Any) -> Any:
    found = OrderedDict()
    found[one] = two
    return found


def test_support_is_as_the_version_says() -> None:
    state, reason = _native.freeze_support()
    assert state == ("on" if SUPPORTED else "off")
    assert bool(reason) == (not SUPPORTED)


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda one, two: (one, two),
    "list": lambda one, two: [one, two],
    "set": lambda one, two: {one, two},
    "frozenset": lambda one, two: frozenset([one, two]),
    "dict": lambda one, two: {one: two},
    "dict with other keys": lambda one, two: {(one,): two, 5: 6},
    "deque": lambda one, two: deque([one, two]),
    "OrderedDict": in_order,
    "defaultdict": lambda one, two: defaultdict(list, {one: two}),
    "slice": lambda one, two: slice(one, two),
    "attributes": lambda one, two: plain(one=one, two=two),
    "attributes in a dict": lambda one, two: vars(plain(one=one, two=two)),
    "class": lambda one, two: type("Made", (), {"one": one, "two": two}),
    "class of an instance": lambda one, two: type("Made", (), {"one": one, "two": two})(),
    "base of a class": lambda one, two: type("B", (type("A", (), {"x": (one, two)}),), {}),
    "nested": lambda one, two: [{"a": ({"b": [(one,)]},), "c": two}],
    "code": lambda one, two: compile(f"x = {one!r}, {two!r}", text(), "exec"),
    "name of a class": lambda one, two: type(one, (), {})(),
}


if sys.version_info >= (3, 15):
    CONTAINERS["frozendict"] = lambda one, two: frozendict({one: two})  # noqa: F821


@immortal
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_everything_reachable(make: Callable[[Any, Any], Any]) -> None:
    one, two = text(), text()
    container = make(one, two)
    # A free-threaded 3.13 makes classes immortal itself once there is a second thread.
    assert isinstance(container, type) or not ppserver.is_frozen(container)
    report = ppserver.freeze(container)
    assert ppserver.is_frozen(container)
    assert ppserver.is_frozen(type(container))
    assert report.objects >= 1
    assert report.bytes > 0
    assert report.reason == ""
    if isinstance(container, type(compile("", "", "exec"))):
        assert ppserver.is_frozen(container.co_filename)
        assert all(map(ppserver.is_frozen, container.co_consts))
    elif type(container).__name__ == one:
        assert ppserver.is_frozen(type(container).__name__)
    else:
        assert ppserver.is_frozen(one)
        assert ppserver.is_frozen(two)


@immortal
def test_functions_methods_and_modules() -> None:
    run_python(
        """
        import functools, sys, types
        import ppserver

        def outer(cell):
            def inner(a, b=["default"], *, c=["keyword"]):
                "documentation"
                return cell, a, b, c, "constant of inner", (1.5, "in a tuple")
            return inner

        class Made:
            @property
            def value(self):
                return 1
            @classmethod
            def make(cls):
                return cls()
            @staticmethod
            def free():
                return 2

        module = types.ModuleType("apart")
        module.content = ["content"]
        cell, bound = ["in a cell"], ["bound"]
        function = outer(cell)
        partial = functools.partial(print, bound)
        cached = functools.lru_cache(lambda x: [x])
        kept = cached(3)
        data = [function, module, partial, cached, Made().make]
        ppserver.freeze(data)
        frozen = ppserver.is_frozen
        assert frozen(function) and frozen(cell) and frozen(function.__code__)
        assert frozen(function.__defaults__[0]) and frozen(function.__kwdefaults__["c"])
        assert all(map(frozen, function.__code__.co_consts)), function.__code__.co_consts
        assert frozen(module) and frozen(module.content) and frozen(bound) and frozen(kept)
        assert frozen(Made) and frozen(Made.__dict__["value"].fget)
        # Whatever a function sees is reachable, and so are the methods of builtin types.
        assert frozen(globals()) and frozen(str.__dict__["join"]) and frozen(dict.__dict__["get"])
        assert function(1)[0] is cell and Made.make().value == 1 and cached(4) == [4]
        """
    )


@immortal
def test_deep_data_needs_no_stack() -> None:
    deep: list[Any] = []
    innermost = deep
    for _ in range(300_000):
        deep = [deep]
    assert ppserver.freeze(deep).objects >= 300_000
    assert ppserver.is_frozen(innermost)


@immortal
def test_a_second_freeze_adds_only_what_is_new() -> None:
    data = [text() for _ in range(50)]
    first = ppserver.freeze(data)
    assert first.objects >= 51
    data.append(text())
    second = ppserver.freeze(data)
    assert second.objects == 1
    assert ppserver.is_frozen(data[-1])


@immortal
def test_bytes_are_about_right() -> None:
    for data in (
        [[number] for number in range(10_000, 20_000)],
        {text(): text() for _ in range(10_000)},
        {text() for _ in range(10_000)},
        [b"x" * 1000 for _ in range(1000)],
        [plain(a=text(), b=text()) for _ in range(1000)],
        bytearray(100_000),
        [float(number) for number in range(10_000)],
    ):
        seen: dict[int, int] = {}
        todo: list[Any] = [data]
        while todo:
            one = todo.pop()
            if id(one) not in seen and not ppserver.is_frozen(one) and not isinstance(one, type):
                seen[id(one)] = sys.getsizeof(one)
                todo += gc.get_referents(one)
                todo += one if isinstance(one, dict) else ()
        del todo, one
        measured = sum(seen.values())
        report = ppserver.freeze(data)
        assert 0.7 * measured < report.bytes < 1.5 * measured


@immortal
def test_hashes_are_filled_in() -> None:
    def cached_hash(string: str) -> int:
        return ctypes.c_ssize_t.from_address(id(string) + OBJECT_BYTES + 8).value

    one = text()
    assert cached_hash(one) == -1
    ppserver.freeze([one])
    assert cached_hash(one) == hash(one)


@immortal
def test_strings_become_names() -> None:
    """Interned strings are counted in a way of their own, and must survive it."""
    name = sys.intern("name_" + text().replace(" ", "_"))
    ppserver.freeze([name])
    assert ppserver.is_frozen(name)
    assert sys.intern(str(b"name_", "ascii") + name[5:]) is name
    holder = plain(**{name: 1})
    assert getattr(holder, name) == 1


def test_is_frozen_of_ordinary_objects() -> None:
    assert not ppserver.is_frozen([])
    assert not ppserver.is_frozen(text())
    assert ppserver.is_frozen(None) == (sys.version_info >= (3, 12))


@pytest.mark.skipif(SUPPORTED, reason="objects can be made immortal here")
def test_without_immortal_objects_only_the_collector_is_told() -> None:
    run_python(
        """
        import gc
        import ppserver
        data = [[1]]
        report = ppserver.freeze(data)
        assert report.objects == report.bytes == 0 and report.reason, report
        assert "not frozen" in str(report)
        assert not ppserver.is_frozen(data)
        assert gc.get_freeze_count() > 0
        """
    )


# ---- what is left alone ----


@immortal
def test_live_resources_stay_mortal() -> None:
    run_python(
        """
        import asyncio, contextvars, queue, select, socket, sqlite3, sys, tempfile, threading
        import weakref
        import ppserver

        class Finalised:
            def __init__(self, content):
                self.content = content
            def __del__(self):
                pass

        class Referent:
            pass

        class Worker(threading.Thread):
            pass

        def generator(content):
            yield content

        async def coroutine(content):
            return content

        async def async_generator(content):
            yield content

        def frame(content):
            return sys._getframe()

        def trace(content):
            try:
                1 / 0
            except ZeroDivisionError as error:
                return error.__traceback__

        def main():
            hidden = {}  # Out of reach of any module.

            def content(kind):
                return hidden.setdefault(kind, [kind])

            loop = asyncio.new_event_loop()
            future = loop.create_future()
            future.set_result(content("future"))
            local = threading.local()
            local.content = content("local")
            context = contextvars.Context()
            context.run(contextvars.ContextVar("variable").set, content("context"))
            simple = queue.SimpleQueue()
            simple.put(content("simple queue"))
            waiting = coroutine(content("coroutine"))
            referent = Referent()
            live = {
                "file": tempfile.TemporaryFile(),
                "socket": socket.socket(),
                "lock": threading.Lock(),
                "rlock": threading.RLock(),
                "thread": Worker(target=print, args=(content("thread"),)),
                "generator": generator(content("generator")),
                "coroutine": waiting,
                "async generator": async_generator(content("async generator")),
                "loop": loop,
                "future": future,
                "local": local,
                "context": context,
                "simple queue": simple,
                "weak": weakref.ref(referent),
                "finalised": Finalised(content("finalised")),
                "frame": frame(content("frame")),
                "traceback": trace(content("traceback")),
                "epoll": select.epoll(),
                "database": sqlite3.connect(":memory:"),
            }
            report = ppserver.freeze(live)
            assert ppserver.is_frozen(live)
            assert not [name for name, one in live.items() if ppserver.is_frozen(one)]
            assert len(hidden) == 11, hidden
            assert not [name for name, one in hidden.items() if ppserver.is_frozen(one)]
            assert report.mortal["_io.BufferedRandom"] == 1, report.mortal
            assert report.mortal["socket.socket"] == 1
            for name in ("socket", "file", "database", "epoll", "loop", "coroutine"):
                live[name].close()

        main()
        """
    )


@immortal
def test_nothing_is_walked_beyond_a_live_resource() -> None:
    def generator(content: Any) -> Any:
        yield content

    hidden = [text()]
    waiting = generator(hidden)
    ppserver.freeze({"live": waiting})
    assert not ppserver.is_frozen(waiting)
    assert not ppserver.is_frozen(hidden)
    assert list(waiting) == [hidden]


@immortal
def test_the_last_reference_to_a_live_resource_still_ends_it() -> None:
    run_python(
        """
        import os, tempfile, warnings
        import ppserver
        warnings.simplefilter("ignore", ResourceWarning)
        holder = {"file": tempfile.TemporaryFile()}
        number = holder["file"].fileno()
        ppserver.freeze(holder)
        del holder["file"]
        try:
            os.fstat(number)
        except OSError:
            pass
        else:
            raise AssertionError("still open")
        """
    )


# ---- afterwards ----


@immortal
def test_no_use_of_a_frozen_object_writes_to_its_header() -> None:
    def hand_out(held: Any) -> Any:
        while True:
            yield held

    async def wait_for(held: Any) -> Any:
        return held

    def give(held: Any, *rest: Any, **named: Any) -> Any:
        kept = [held, held, *rest]
        other = held
        return other if kept[0] is held and named == {} else kept

    def header() -> bytes:
        return ctypes.string_at(id(data), OBJECT_BYTES)

    data = [text()]
    holder = plain(data=data)
    early = hand_out(data)
    assert next(early) is data
    ppserver.freeze(holder, hand_out)
    # A frame that was suspended counts what it holds on newer versions, so that stays mortal.
    counting = sys.version_info >= (3, 14) and not FREE_THREADED
    assert ppserver.is_frozen(data) == (not counting)
    assert ppserver.is_frozen(data[0])
    assert ppserver.is_frozen(holder.__dict__)
    early.close()
    ppserver.freeze(holder)
    assert ppserver.is_frozen(data)
    before = header()
    late = hand_out(holder.data)
    for _ in range(1000):
        assert next(late) is give(holder.data, 1) is data
        assert [one for one in (holder.data, holder.data) if one is not None] == [data, data]
        try:
            wait_for(holder.data).send(None)
        except StopIteration as result:
            assert result.value is data
        kept = {1: holder.data}
        assert kept.pop(1) is kept.get(2, holder.data) is holder.__dict__["data"]
    late.close()
    assert header() == before


@immortal
def test_what_a_suspended_frame_holds_is_found_wherever_the_frame_is() -> None:
    def hand_out(held: Any) -> Any:
        while True:
            yield held

    async def hand_out_later(held: Any) -> Any:
        while True:
            yield held

    async def stand(held: Any) -> None:
        await Turn()
        assert held

    class Turn:
        def __await__(self) -> Any:
            yield self

    kinds = [[text()] for _ in range(4)]
    many = [[text()] for _ in range(200)]
    generators = [hand_out(one) for one in many]
    frames = [hand_out(kinds[0]), hand_out_later(kinds[1]), stand(kinds[2])]
    frames[2].send(None)
    permanent = hand_out(kinds[3])
    for frame in (*generators, permanent):
        next(frame)
    gc.freeze()
    try:
        ppserver.freeze([*kinds, *many])
    finally:
        gc.unfreeze()
    counting = sys.version_info >= (3, 14) and not FREE_THREADED
    assert {ppserver.is_frozen(one) for one in (*kinds, *many)} == {not counting}
    assert all(ppserver.is_frozen(one[0]) for one in (*kinds, *many))
    frames[2].close()


@immortal
def test_frozen_containers_may_change() -> None:
    mapping: dict[Any, Any] = {number: text() for number in range(5)}
    sequence = [text() for _ in range(5)]
    group = {text() for _ in range(5)}
    made = type("Made", (), {"attribute": text()})
    instance = made()
    instance.field = text()
    slots = Slots.__new__(Slots)
    slots.one = text()
    ppserver.freeze(mapping, sequence, group, made, instance)
    for number in range(5, 5000):
        mapping[number] = [number]
        sequence.append(str(number))
        group.add(number)
        setattr(instance, f"field{number % 50}", [number])
        setattr(made, f"attribute{number % 50}", [number])
    mapping[0] = "replaced"
    sequence[0] = "replaced"
    sequence.sort()
    instance.field = "replaced"
    made.attribute = "replaced"
    del mapping[1], instance.field1, made.attribute1
    group.clear()
    gc.collect()
    assert mapping[0] == instance.field == instance.attribute == "replaced"
    assert 1 not in mapping
    assert mapping[4999] == [4999]
    assert len(sequence) == 5000
    assert not ppserver.is_frozen(mapping[4999])
    sub = type("Sub", (made,), {})
    assert sub().attribute == "replaced"


@immortal
def test_the_collector_collects_what_is_new() -> None:
    import weakref

    holder: dict[str, Any] = {}
    ppserver.freeze(holder)
    cycle = plain()
    cycle.me = cycle
    seen = weakref.ref(cycle)
    holder["cycle"] = cycle
    del cycle
    gc.collect()
    assert seen() is not None  # A frozen container keeps it alive.
    del holder["cycle"]
    gc.collect()
    assert seen() is None


@immortal
def test_weak_references() -> None:
    import weakref

    frozen, other = plain(), plain()
    values: Any = weakref.WeakValueDictionary({"frozen": frozen, "other": other})
    called: list[str] = []
    one = weakref.ref(other, lambda _: called.append("other"))
    two = weakref.ref(frozen, lambda _: called.append("frozen"))
    ppserver.freeze(frozen)
    ppserver.freeze([one, two])
    del frozen, other
    gc.collect()
    assert called == ["other"]
    assert dict(values) == {"frozen": two()}
    assert one() is None


@immortal
def test_weak_references_to_frozen_objects_are_frozen() -> None:
    import weakref

    kept, lost = plain(), plain()
    one, two = weakref.ref(kept), weakref.ref(lost)
    cache: Any = weakref.WeakValueDictionary(kept=kept, lost=lost)
    ppserver.freeze({"kept": kept, "one": one, "two": two, "cache": cache})
    assert ppserver.is_frozen(one)
    assert not ppserver.is_frozen(two)
    del lost
    assert two() is None
    assert dict(cache) == {"kept": kept}
    assert one() is kept


@immortal
def test_iterators_that_reuse_their_tuple() -> None:
    """They do so when nobody else has it, which they tell by its reference count."""
    pairs = zip([1, 2, 3, 4], "abcd", strict=True)
    counted = enumerate("abcd")
    ppserver.freeze(pairs, counted)
    assert list(pairs) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert list(counted) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


# ---- failures ----


def call_native(roots: tuple[Any, ...], progress: Any = None) -> Any:
    return _native.freeze_objects(roots, (), (), lambda _: ([], 0), progress)


@immortal
def test_arguments_are_checked() -> None:
    for arguments in (
        (),
        ([], (), (), print, None),
        ((), (1,), (), print, None),
        ((), (), ("x",), print, None),
    ):
        with pytest.raises(TypeError):
            _native.freeze_objects(*arguments)  # type: ignore[arg-type]


@immortal
def test_an_error_between_slices_leaves_everything_mortal() -> None:
    data = [[text()] for _ in range(300_000)]  # More than a slice.
    counts = [sys.getrefcount(one) for one in data]

    def fail(objects: int, size: int) -> None:
        assert objects > 0
        assert size > 0
        raise KeyError("stop")

    with pytest.raises(KeyError):
        call_native((data,), fail)
    assert not ppserver.is_frozen(data)
    assert not any(map(ppserver.is_frozen, data))
    assert [sys.getrefcount(one) for one in data] == counts


@immortal
def test_wrong_answers_of_expand() -> None:
    data = [bytearray(5)]
    for answer in (None, (), ([],), ([], "x"), ((), 0)):
        with pytest.raises(TypeError):
            _native.freeze_objects((data,), (), (bytearray,), lambda _, a=answer: a, None)
        assert not ppserver.is_frozen(data)


@immortal
def test_a_signal_between_slices_stops_it() -> None:
    data = [[text()] for _ in range(300_000)]

    def on_signal(number: int, frame: Any) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with pytest.raises(InterruptedError):
            call_native((data,), lambda *_: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not ppserver.is_frozen(data)


@immortal
@pytest.mark.skipif(
    not hasattr(_native, "_fail_allocation"), reason="not a build that can make allocations fail"
)
def test_every_allocation_fails_once() -> None:
    data = [{text(): (text(), index)} for index in range(10_000, 20_000)]
    counts = [sys.getrefcount(one) for one in data]
    blocks = _native.memory()["blocks"]
    failed = 0
    for nth in range(1, 1000):
        _native._fail_allocation(nth)  # type: ignore[attr-defined]
        try:
            call_native((data,))
        except MemoryError:
            failed += 1
            assert not ppserver.is_frozen(data)
            assert [sys.getrefcount(one) for one in data] == counts
            assert _native.memory()["blocks"] == blocks
        else:
            break
        finally:
            _native._fail_allocation(0)  # type: ignore[attr-defined]
    assert failed >= 8
    assert ppserver.is_frozen(data[-1])
    assert _native.memory()["blocks"] == blocks


@immortal
@pytest.mark.skipif(not _native.BUILD["assertions"], reason="only builds with assertions can")
def test_a_layout_that_is_not_the_expected_one_switches_it_off() -> None:
    run_python(
        """
        import gc, logging, warnings
        import ppserver
        from ppserver import _native, freezing
        state, reason = _native.freeze_support()
        assert state == "broken" and "as expected" in reason, (state, reason)
        data = [["mortal"]]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            logging.getLogger("ppserver.error").addHandler(logging.NullHandler())
            report = freezing.prepare(ppserver.Config("a:b"), data)
            ppserver.freeze(data)
        assert [one.category for one in caught] == [RuntimeWarning], caught
        assert report.reason == reason and report.objects == 0
        assert not ppserver.is_frozen(data)
        assert gc.get_freeze_count() > 0
        try:
            _native.freeze_objects((data,), (), (), print, None)
        except RuntimeError:
            pass
        else:
            raise AssertionError("froze")
        """,
        env={"TEST_FREEZE_LAYOUT": "wrong"},
    )


# ---- at start ----


@immortal
def test_prepare() -> None:
    run_python(
        """
        import gc, json
        import ppserver
        from ppserver import freezing
        def app(environ, start_response):
            return [hidden]
        hidden = ["reachable from the application"]
        only_root = [["only a root"]]
        report = freezing.prepare(ppserver.Config("a:b", freeze=False), only_root)
        assert str(report) == "data not frozen after load: --no-freeze"
        assert not ppserver.is_frozen(only_root) and not ppserver.is_frozen(json.dumps)
        assert gc.get_freeze_count() > 0
        report = freezing.prepare(ppserver.Config("a:b"), app, only_root)
        assert ppserver.is_frozen(only_root) and ppserver.is_frozen(json.dumps)
        assert ppserver.is_frozen(hidden)
        assert report.objects > 10_000 and report.bytes > 1_000_000 and report.seconds > 0
        assert str(report).startswith("data frozen after load: ")
        assert json.loads(json.dumps({"a": [1]})) == {"a": [1]}
        """
    )


@immortal
def test_progress_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(freezing, "_PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "ppserver.error"):
        ppserver.freeze([text()])
    assert "objects" in caplog.text
    assert "so far" in caplog.text


def test_after_contexts_started() -> None:
    freezing.contexts_started()
    try:
        if FREE_THREADED:
            with pytest.raises(RuntimeError, match="before contexts"):
                ppserver.freeze([])
        elif SUPPORTED:
            data = [text()]
            ppserver.freeze(data)
            assert ppserver.is_frozen(data)
    finally:
        freezing.contexts_ended()


def test_alone_gives_back_what_it_took() -> None:
    run_python(
        """
        import gc
        from ppserver import freezing
        objects = [[number] for number in range(10_000)]
        with freezing.alone():
            assert gc.get_freeze_count() > 10_000
        assert gc.get_freeze_count() < 10_000
        """
    )


def test_the_setting() -> None:
    assert Config("a:b").freeze is True
    assert Config("a:b", freeze=False).freeze is False
