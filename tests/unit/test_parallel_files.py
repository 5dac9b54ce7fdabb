"""Files: the kernel is told how they will be used, and reads and writes are whole."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from parallel import files
from parallel.files import CachingBehavior


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


@pytest.mark.parametrize(
    ("behavior", "advice"),
    [
        (CachingBehavior.Default, os.POSIX_FADV_NORMAL),
        (CachingBehavior.Buffered, os.POSIX_FADV_NORMAL),
        (CachingBehavior.RandomAccess, os.POSIX_FADV_RANDOM),
        (CachingBehavior.SequentialScan, os.POSIX_FADV_SEQUENTIAL),
        (CachingBehavior.WriteThrough, os.POSIX_FADV_NORMAL),
        (CachingBehavior.Temporary, os.POSIX_FADV_NOREUSE),
    ],
)
def test_behaviors(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, behavior: CachingBehavior, advice: int
) -> None:
    given: list[tuple[int, int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *args: given.append(args))
    with files.open(path, "r+b", behavior) as file:
        assert given == [(file.fileno(), 0, 0, advice)]
        through = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DSYNC
        assert bool(through) == (behavior is CachingBehavior.WriteThrough)
        assert not os.get_inheritable(file.fileno())
        assert files.read(file) == b"0123456789"


@pytest.mark.parametrize("behavior", CachingBehavior)
def test_behaviors_for_real(path: pathlib.Path, behavior: CachingBehavior) -> None:
    with files.open(str(path), "rb", int(behavior)) as file:
        assert file.read() == b"0123456789"


def test_what_takes_no_advice(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with files.open(fifo, "r+b", CachingBehavior.SequentialScan) as file:
        files.write(file, b"abc")
        assert files.read(file, 3) == b"abc"


def test_what_cannot_be_opened(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.open(tmp_path / "missing")
    with pytest.raises(ValueError, match="mode"):
        files.open(path, "rt")
    with pytest.raises(ValueError, match="CachingBehavior"):
        files.open(path, "rb", 17)


def test_permissions(tmp_path: pathlib.Path, umask: None) -> None:
    files.close(files.open(tmp_path / "a", "w"))
    files.close(files.open(tmp_path / "b", "w", permissions=0o600))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_read(path: pathlib.Path) -> None:
    file = files.open(path)
    assert files.read(file, 2) == b"01"
    assert files.read(file, 3, offset=7) == b"789"
    assert files.read(file, 3, 9) == b"9"
    assert files.read(file, offset=4) == b"456789"
    assert files.read(file, 0) == files.read(file, 5, 10) == b""
    assert files.read(file) == b"23456789"
    assert files.read(file) == b""
    with pytest.raises(ValueError, match="offset: expected 0 or more, got -1"):
        files.read(file, 1, -1)
    files.close(file)
    files.close(file)
    with pytest.raises(ValueError, match="closed"):
        files.read(file)


@pytest.mark.parametrize("size", [files._PIECE_BYTES, 2 * files._PIECE_BYTES + 3])
def test_large(tmp_path: pathlib.Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with files.open(tmp_path / "large", "w+") as file:
        assert files.write(file, data) == size
        assert files.read(file, offset=0) == data
        assert files.read(file, size + 5, 0) == data
        assert files.read(file, size - 1, 1) == data[1:]


def test_write(path: pathlib.Path) -> None:
    with files.open(path, "r+") as file:
        assert files.write(file, b"ab") == 2
        assert files.write(file, bytearray(b"xyz"), offset=8) == 3
        assert files.write(file, b"") == 0
        assert files.write(file, array.array("H", [0x4141])) == 2
        with pytest.raises(ValueError, match="offset"):
            files.write(file, b"a", -5)
    assert path.read_bytes() == b"abAA4567xyz"


class Short:
    """A file that takes and gives three bytes at a time at most."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def write(self, data: Any) -> int:
        self.content += bytes(data[:3])
        return min(len(data), 3)

    def read(self, count: int) -> bytes:
        piece, self.content = self.content[: min(count, 3)], self.content[min(count, 3) :]
        return piece


def test_short_writes_and_reads() -> None:
    short = Short()
    assert files.write(short, b"0123456789") == 10
    assert short.content == b"0123456789"
    assert files.read(short, 8) == b"01234567"
    assert files.read(short) == b"89"


def test_short_writes_at_an_offset(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:3], at))
    with files.open(path, "r+") as file:
        assert files.write(file, b"abcdefgh", 1) == 8
    assert path.read_bytes() == b"0abcdefgh9"


def test_what_would_block() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    with open(read_fd, "rb", 0) as reader, open(write_fd, "wb", 0) as writer:
        with pytest.raises(BlockingIOError):
            files.read(reader, 1)
        with pytest.raises(BlockingIOError):
            files.write(writer, bytes(1 << 21))


def test_writefile(tmp_path: pathlib.Path, umask: None) -> None:
    path = tmp_path / "new"
    assert files.writefile(path, b"first") == 5
    assert files.readfile(str(path)) == b"first"
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    with path.open("rb") as before:
        assert files.writefile(bytes(path), memoryview(b"2nd")) == 3
        assert before.read() == b"first"
    assert path.read_bytes() == b"2nd"
    assert path.stat().st_mode & 0o777 == 0o604
    assert os.listdir(tmp_path) == ["new"]


def test_writefile_in_the_current_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files.writefile("name", b"x")
    assert (tmp_path / "name").read_bytes() == b"x"


def test_writefile_follows_links(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    files.writefile(link, b"through")
    assert link.is_symlink()
    assert path.read_bytes() == b"through"


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_writefile_that_fails(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        files.writefile(path, b"new")
    assert path.read_bytes() == b"0123456789"
    assert os.listdir(tmp_path) == ["file"]


def test_writefile_to_what_is_no_file(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        with pytest.raises(ValueError, match="not a regular file"):
            files.writefile(path, b"x")
    with pytest.raises(FileNotFoundError):
        files.writefile(tmp_path / "missing" / "file", b"x")
    with pytest.raises(TypeError):
        files.writefile(tmp_path / "text", "text")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["fifo"]
