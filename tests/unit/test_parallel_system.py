"""Clocks, thread numbers, flags and output in one piece."""

from __future__ import annotations

import concurrent.futures
import io
import logging
import os
import sys
import threading
import time

import pytest
from parallel import system


def in_new_thread(function):  # type: ignore[no-untyped-def]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_clocks() -> None:
    first = system.rdtsc()
    assert 0 < first <= system.rdtsc()
    assert system.gmtime(0) == time.gmtime(0)
    assert system.gmtime().tm_year >= 2024


def test_thread_numbers() -> None:
    own = system.thread_seq_id()
    assert own == system.thread_seq_id() >= 1
    first, second = (in_new_thread(system.thread_seq_id) for _ in range(2))
    assert own < first == second - 1


def test_thread_numbers_at_once() -> None:
    count = 8
    barrier = threading.Barrier(count)

    def ask() -> int:
        barrier.wait()
        return system.thread_seq_id()

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        numbers = [future.result() for future in [pool.submit(ask) for _ in range(count)]]
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + count))


def test_parallel_threads() -> None:
    def look() -> tuple[bool, bool]:
        return system.is_parallel_thread(), system.was_parallel_thread()

    def course() -> list[tuple[bool, bool]]:
        seen = [look()]
        for flag in (False, True, False):
            system.mark_parallel(flag)
            seen.append(look())
        return seen

    assert in_new_thread(course) == [
        (False, False),
        (False, False),
        (True, True),
        (False, True),
    ]
    assert look() == (False, False)


def test_heap_override() -> None:
    assert not system.is_heap_override_active()
    system.enable_heap_override()
    try:
        assert system.is_heap_override_active()
    finally:
        system.disable_heap_override()
    assert not system.is_heap_override_active()
    assert system.seh_eav_in_io_callback() == 0


def test_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "ppserver.error"):
        system.debug("100 % done")
        system.debug(3)
    assert [record.getMessage() for record in caplog.records] == ["100 % done", "3"]


class Pieces(io.StringIO):
    """A file that remembers how it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


def test_output_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err, other = Pieces(), Pieces(), Pieces()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    system.print("a", 1, sep="-")
    system.print("b", file=other, end="!", flush=False)
    system.print(sep=None, end=None)
    system.stdout("c")
    system.stderr("d\n")
    assert out.pieces == ["a-1\n", "\n", "c"]
    assert err.pieces == ["d\n"]
    assert other.pieces == ["b!"]


def test_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    system.stdout("lost")
    system.print("lost")


def test_output_of_threads_does_not_mix() -> None:
    read_fd, write_fd = os.pipe()
    count, lines = 4, 50
    with open(read_fd) as reader:
        with open(write_fd, "w") as writer:

            def work(letter: str) -> None:
                for _ in range(lines):
                    system.print(letter, letter, letter, file=writer)

            with concurrent.futures.ThreadPoolExecutor(count) as pool:
                for future in [pool.submit(work, letter) for letter in "abcd"]:
                    future.result()
        written = reader.read().splitlines()
    assert sorted(written) == sorted(f"{c} {c} {c}" for c in "abcd" for _ in range(lines))


def test_a_fork_frees_the_locks() -> None:
    before = system._Process.output
    with before:
        system._renew_locks()
        assert system._Process.output is not before
        assert in_new_thread(lambda: system._Process.output.acquire(blocking=False))
    system._renew_locks()
