"""A console that nobody reads."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator

import pytest

from ppserver.observe import console
from ppserver.observe.console import Console, Pipe

F_SETPIPE_SZ = 1031


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_PATIENCE_MS", 1)


@pytest.fixture(params=["pipe", "socket", "pipe of another user"])
def ends(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, int]]:
    """Reading and writing end."""
    if request.param == "socket":
        one, other = (sock.detach() for sock in socket.socketpair())
    else:
        one, other = os.pipe()
        fcntl.fcntl(other, F_SETPIPE_SZ, 8192)
    if request.param == "pipe of another user":

        def refuse(*args: object) -> int:
            raise PermissionError

        monkeypatch.setattr(os, "open", refuse)
    yield one, other
    os.close(one)
    os.close(other)


def read_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    found = b""
    try:
        while data := os.read(fd, 1 << 16):
            found += data
    except BlockingIOError:
        pass
    return found


def test_lines_without_room_are_counted_and_told(ends: tuple[int, int]) -> None:
    reader, writer = ends
    pipe = Pipe(writer)
    count = 0
    while not pipe.lost:
        count += 1
        pipe.write(f"line {count:04}\n")
    pipe.write("another\n")
    lost = pipe.lost
    assert lost == 2
    found = read_all(reader)
    pipe.write("again\n")
    found += read_all(reader)
    lines = found.decode().splitlines()
    assert lines[-1] == "again"
    assert lines[-2] == "WARNING:  2 lines of the log were lost: nobody read them"
    assert lines[:-2] == [f"line {n:04}" for n in range(1, count)]
    assert os.get_blocking(writer)


def test_a_line_that_is_cut_is_finished_first(ends: tuple[int, int]) -> None:
    reader, writer = ends
    pipe = Pipe(writer)
    text = "x" * 50_000 + "\n"
    pipe.write("first\n")
    pipe.write(text)
    pipe.write("lost\n")
    found = read_all(reader)
    for _ in range(20):
        pipe.write("later\n")
        found += read_all(reader)
    lines = found.decode().splitlines()
    assert lines[0] == "first"
    assert lines[1].strip("x") == ""
    assert lines[-1] == "later"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    pipe = Pipe(writer)
    os.close(reader)
    pipe.write("x\n")
    assert pipe.lost == 1
    os.close(writer)


def test_what_is_no_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    one = Console("stderr")
    one.write("x\n")
    one.flush()
    assert capsys.readouterr().err == "x\n"
