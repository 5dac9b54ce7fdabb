"""Counters and arrays in shared memory: values, limits, life, and many at once."""

from __future__ import annotations

import array
import copy
import ctypes
import gc
import math
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from ppserver import shared

SIGNED = {"b": 8, "h": 16, "i": 32, "q": 64}
UNSIGNED = {"B": 8, "H": 16, "I": 32, "Q": 64}
INTEGERS = {code: (-(1 << bits - 1), (1 << bits - 1) - 1) for code, bits in SIGNED.items()} | {
    code: (0, (1 << bits) - 1) for code, bits in UNSIGNED.items()
}
NAMES = {
    **{code: f"int{bits}" for code, bits in SIGNED.items()},
    **{code: f"uint{bits}" for code, bits in UNSIGNED.items()},
    "f": "float32",
    "d": "float64",
}
LEAST, MOST = INTEGERS["q"]


def mappings() -> int:
    """Anonymous shared mappings of this process."""
    return pathlib.Path("/proc/self/maps").read_text().count("/dev/zero (deleted)")


# Counter.


def test_counter() -> None:
    counter = shared.Counter()
    assert counter.value == 0
    assert counter.add() == 1
    assert counter.add(41) == 42
    assert counter.add(-50) == -8
    assert int(counter) == counter.value == -8
    assert counter.exchange(7) == -8
    assert not counter.compare_exchange(8, 9)
    assert counter.value == 7
    assert counter.compare_exchange(7, 9)
    assert counter.value == 9
    assert counter.set(5) is None  # type: ignore[func-returns-value]
    assert repr(counter) == "<ppserver.shared.Counter 5>"
    assert shared.Counter(initial=-3).value == -3


@pytest.mark.parametrize("value", [LEAST, MOST, -1, 0])
def test_counter_whole_range(value: int) -> None:
    counter = shared.Counter(value)
    assert counter.value == value
    counter.set(0)
    assert counter.add(value) == value
    assert counter.exchange(value) == value
    assert counter.compare_exchange(value, value)


def test_counter_goes_round() -> None:
    assert shared.Counter(MOST).add() == LEAST
    assert shared.Counter(LEAST).add(-1) == MOST


@pytest.mark.parametrize("value", [MOST + 1, LEAST - 1, 1 << 200])
def test_counter_too_large(value: int) -> None:
    counter = shared.Counter(3)
    for change in (counter.add, counter.set, counter.exchange):
        with pytest.raises(OverflowError):
            change(value)
    with pytest.raises(OverflowError):
        counter.compare_exchange(value, 0)
    with pytest.raises(OverflowError):
        counter.compare_exchange(3, value)
    with pytest.raises(OverflowError):
        shared.Counter(value)
    assert counter.value == 3


def test_counter_wrong_arguments() -> None:
    counter: Any = shared.Counter(3)
    for value in ("1", 1.0, None):
        for change in (counter.add, counter.set, counter.exchange, shared.Counter):
            with pytest.raises(TypeError):
                change(value)
        with pytest.raises(TypeError):
            counter.compare_exchange(value, 1)
        with pytest.raises(TypeError):
            counter.compare_exchange(3, value)
    for wrong in (
        lambda: counter.add(1, 2),
        lambda: counter.compare_exchange(1),
        lambda: shared.Counter(1, True),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        counter.value = 1
    assert counter.value == 3


# Array.


@pytest.mark.parametrize(("code", "limits"), INTEGERS.items())
def test_integers(code: str, limits: tuple[int, int]) -> None:
    least, most = limits
    numbers = shared.Array(code, 3)
    assert list(numbers) == [0, 0, 0]
    numbers[0], numbers[-1] = least, most
    assert list(numbers) == [least, 0, most]
    assert numbers.add(1) == 1
    assert numbers.add(-2, 4) == 5
    assert numbers.add(1, -2) == 3
    assert numbers.add(2) == least, "goes round"
    assert numbers.add(2, -1) == most
    assert numbers.add(1, most) == (3 + most - least) % (most - least + 1) + least
    numbers[1] = 9
    assert not numbers.compare_exchange(1, 8, 7)
    assert numbers.compare_exchange(1, 9, most)
    for value in (least - 1, most + 1, 1 << 70, -(1 << 70)):
        with pytest.raises(OverflowError):
            numbers[1] = value
        with pytest.raises(OverflowError):
            numbers.compare_exchange(1, value, 1)
        with pytest.raises(OverflowError):
            numbers.compare_exchange(1, 1, value)
    for value in (most + 1, -most - 2):
        with pytest.raises(OverflowError):
            numbers.add(1, value)
    wrong: Any
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError):
            numbers[1] = wrong
        with pytest.raises(TypeError):
            numbers.add(1, wrong)
    assert list(numbers) == [least, most, most]


@pytest.mark.parametrize("code", ["f", "d"])
def test_floats(code: str) -> None:
    numbers = shared.Array(code, 4)
    numbers[0] = -2.5
    numbers[1] = 3
    assert numbers.add(0, 1.25) == -1.25
    assert numbers.add(1) == 4.0
    for value in (math.inf, -math.inf, -0.0, 1.0e-40):
        numbers[2] = value
        assert numbers[2] == (
            struct.unpack("f", struct.pack("f", value))[0] if code == "f" else value
        )
    numbers[2] = math.nan
    assert math.isnan(numbers[2])
    with pytest.raises(TypeError, match="whole numbers"):
        numbers.compare_exchange(0, 1, 2)
    wrong: Any
    for wrong in ("1", None, 1j):
        with pytest.raises(TypeError):
            numbers[0] = wrong
        with pytest.raises(TypeError):
            numbers.add(0, wrong)
    with pytest.raises(OverflowError):
        numbers[0] = 10**400
    assert numbers[0] == -1.25


def test_a_float_too_large_for_32_bits() -> None:
    numbers = shared.Array("f", 1)
    with pytest.raises(OverflowError, match="32 bits"):
        numbers[0] = 1e39
    with pytest.raises(OverflowError, match="32 bits"):
        numbers.add(0, -1e39)
    numbers[0] = 3e38
    assert numbers.add(0, 3e38) == math.inf


@pytest.mark.parametrize("code", NAMES)
def test_kinds_by_name(code: str) -> None:
    numpy = pytest.importorskip("numpy")
    name = NAMES[code]
    for wanted in (code, name, numpy.dtype(name), getattr(numpy, name)):
        numbers = shared.Array(wanted, 5)
        assert numbers.typecode == code
        assert numbers.itemsize == struct.calcsize(code)
        assert numbers.nbytes == 5 * numbers.itemsize
        assert len(numbers) == 5
    assert repr(numbers) == f"<ppserver.shared.Array of 5 {name}>"


@pytest.mark.parametrize(
    "wanted", ["", "x", "bb", "int", int, float, None, 8, ">i8", "int64\0", "\ud800"]
)
def test_unknown_kinds(wanted: object) -> None:
    with pytest.raises(ValueError):
        shared.Array(wanted, 5)


@pytest.mark.parametrize("length", [0, -1, sys.maxsize, (1 << 33) + 1])
def test_lengths_out_of_bounds(length: int) -> None:
    with pytest.raises(ValueError, match="not within 1 and 8589934592"):
        shared.Array("q", length)


def test_wrong_arguments() -> None:
    numbers: Any = shared.Array("q", 2)
    for index in (2, -3, sys.maxsize, 1 << 100):
        with pytest.raises(IndexError):
            numbers[index]
        with pytest.raises(IndexError):
            numbers[index] = 1
        with pytest.raises(IndexError):
            numbers.add(index)
        with pytest.raises(IndexError):
            numbers.compare_exchange(index, 0, 1)
    for wrong in (
        lambda: numbers["0"],
        lambda: numbers[0:1],
        lambda: numbers.add(),
        lambda: numbers.add(0, 1, 2),
        lambda: numbers.add("0"),
        lambda: numbers.compare_exchange(0, 1),
        lambda: numbers.__delitem__(0),
        lambda: shared.Array("q"),  # type: ignore[call-arg]
        lambda: shared.Array("q", 1.0),  # type: ignore[arg-type]
        lambda: shared.Array("q", 1, True),  # type: ignore[misc]
    ):
        with pytest.raises(TypeError):
            wrong()
    assert list(numbers) == [0, 0]


# Views.


@pytest.mark.parametrize("code", NAMES)
def test_views(code: str) -> None:
    numbers = shared.Array(code, 6)
    with memoryview(numbers) as view:
        assert (view.format, view.itemsize, view.shape) == (code, numbers.itemsize, (6,))
        assert (view.strides, view.nbytes) == ((numbers.itemsize,), numbers.nbytes)
        assert view.c_contiguous
        assert not view.readonly
        view[2] = 3
        numbers[4] = 4
        assert view[1:5].tolist() == [0, 3, 0, 4]
        assert view[::2].tolist() == [0, 3, 4]
    assert bytes(numbers) == array.array(code, [0, 0, 3, 0, 4, 0]).tobytes()


def test_a_plain_buffer() -> None:
    """A consumer that asks for bytes only is told of neither format nor shape."""
    numbers = shared.Array("H", 2)
    numbers[1] = 0x4142
    characters = (ctypes.c_char * 4).from_buffer(numbers)
    assert characters.raw == struct.pack("HH", 0, 0x4142)


@pytest.mark.parametrize("code", NAMES)
def test_numpy(code: str) -> None:
    numpy = pytest.importorskip("numpy")
    numbers = shared.Array(code, 3)
    view = numbers.numpy()
    assert view.dtype == numpy.dtype(NAMES[code])
    assert view.flags.writeable
    view[:] = [1, 2, 3]
    assert list(numbers) == [1, 2, 3]
    numbers.add(0, 4)
    assert view.sum() == 10
    assert numpy.asarray(numbers).dtype == view.dtype


def test_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError):
        shared.Array("q", 1).numpy()


# Life.


def test_memory_goes_with_the_last_object() -> None:
    gc.collect()
    before = mappings()
    counter, numbers = shared.Counter(), shared.Array("d", 100_000)
    assert mappings() == before + 2
    del counter
    assert mappings() == before + 1
    view = memoryview(numbers)[5:7]
    del numbers
    assert mappings() == before + 1
    view[0] = 2.5
    assert view.tolist() == [2.5, 0.0]
    view.release()
    assert mappings() == before


def test_a_numpy_view_keeps_the_memory() -> None:
    pytest.importorskip("numpy")
    before = mappings()
    view = shared.Array("q", 10).numpy()
    view += 1
    assert mappings() == before + 1
    assert view.sum() == 10
    del view
    assert mappings() == before


def test_making_many_leaves_nothing() -> None:
    before = mappings(), sys.getrefcount(shared.Counter), sys.getrefcount(shared.Array)
    for _ in range(1000):
        shared.Counter()
        memoryview(shared.Array("B", 3)).release()
        with pytest.raises(ValueError):
            shared.Array("B", 0)
    assert before == (mappings(), sys.getrefcount(shared.Counter), sys.getrefcount(shared.Array))


def test_an_object_that_cannot_be_allocated_leaves_nothing() -> None:
    testcapi = pytest.importorskip(
        "_testcapi", reason="this interpreter cannot make allocations fail"
    )
    before, failed = mappings(), 0
    for make in (shared.Counter, lambda: shared.Array("q", 5)):
        for start in range(8):
            testcapi.set_nomemory(start, start + 1)
            try:
                make()
            except MemoryError:
                failed += 1
            finally:
                testcapi.remove_mem_hooks()
    assert failed >= 2
    assert mappings() == before


@pytest.mark.parametrize("make", [shared.Counter, lambda: shared.Array("q", 1)])
def test_neither_pickled_nor_copied(make: Any) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            attempt(make())


def test_final_and_without_attributes() -> None:
    for kind in (shared.Counter, shared.Array):
        with pytest.raises(TypeError):
            type("Derived", (kind,), {})
        with pytest.raises(TypeError):
            kind.anything = 1  # type: ignore[union-attr]
    with pytest.raises(AttributeError):
        shared.Counter().anything = 1  # type: ignore[attr-defined]


def test_too_late_to_be_shared() -> None:
    with shared.sealed():
        with pytest.raises(RuntimeError, match=r"shared\.Counter: contexts have started.*private"):
            shared.Counter()
        with pytest.raises(RuntimeError, match=r"shared\.Array"):
            shared.Array("q", 1)
        assert shared.Counter(private=True).add() == 1
        assert shared.Array("q", 1, private=True).add(0) == 1
    assert shared.Counter().add() == 1


def run(program: str) -> None:
    """A program of its own: forks, and limits, are not for the process of the tests."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(
    bool(os.environ.get("TEST_SANITIZER")), reason="a sanitizer needs the address space itself"
)
def test_no_memory() -> None:
    run(
        """
        import resource
        from ppserver import shared

        made = shared.Array("B", 1000)
        with open("/proc/self/statm") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            shared.Array("q", 1 << 33)
        except MemoryError:
            pass
        else:
            raise AssertionError
        assert made.add(0) == 1 and shared.Counter().add() == 1
        """
    )


@pytest.mark.slow
def test_threads_and_processes_count_exactly() -> None:
    """16 threads in each of three processes; whatever they do at once, nothing is lost."""
    run(
        """
        import os
        import threading
        from ppserver import shared

        THREADS, ROUNDS, PROCESSES = 16, 4000, 3
        counter, swapped, claimed = shared.Counter(), shared.Counter(), shared.Counter(-1)
        arrays = {code: shared.Array(code, 3) for code in "bBhHiIqQfd"}
        words = shared.Array("q", 1)
        taken, torn = shared.Array("q", PROCESSES * THREADS), shared.Counter()

        def work(number):
            for _ in range(ROUNDS):
                counter.add()
                for numbers in arrays.values():
                    numbers.add(1)
                    numbers.add(2, -1 if numbers.typecode in "bBhH" else 1)
                while not swapped.compare_exchange(value := swapped.value, value + 1):
                    pass
                taken[number] += counter.exchange(0)
                words[0] = -1 if number % 2 else 0
                if words[0] not in (0, -1):
                    torn.add()
            claimed.compare_exchange(-1, number)

        def context(first):
            threads = [
                threading.Thread(target=work, args=(first + n,)) for n in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        children = []
        for process in range(1, PROCESSES):
            pid = os.fork()
            if pid == 0:
                context(process * THREADS)
                os._exit(0)
            children.append(pid)
        context(0)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0

        total = THREADS * ROUNDS * PROCESSES
        assert sum(taken) + counter.value == total, (list(taken), counter.value, total)
        assert swapped.value == total
        assert torn.value == 0
        assert 0 <= claimed.value < PROCESSES * THREADS
        for code, numbers in arrays.items():
            bits = 8 * numbers.itemsize
            assert numbers[0] == 0
            least = -(1 << bits - 1) if code in "bhiq" else 0
            for index, sign in ((1, 1), (2, -1 if code in "bBhH" else 1)):
                right = sign * total
                if code not in "fd":
                    right = (right - least) % (1 << bits) + least
                assert numbers[index] == right, (code, numbers[index], right)
        """
    )


@pytest.mark.slow
def test_a_child_lives_on_without_its_parents_object() -> None:
    run(
        """
        import os
        from ppserver import shared

        counter, done = shared.Counter(), shared.Counter()
        pid = os.fork()
        if pid == 0:
            del counter
            done.add(5)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert counter.add() == 1 and done.value == 5
        """
    )
