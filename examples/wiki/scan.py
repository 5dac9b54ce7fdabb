"""Reads a MediaWiki dump, plain or bzip2: which page begins where, and whether the dump is whole.

No XML parser: text is escaped in an export, so that a line `  <page>` can only be a page, and
looking for that line is as fast as memory. What the index's arithmetic rests on is checked for
every page: the line of its title comes next, and the line before ended the page before.
"""

from __future__ import annotations

import bz2
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import titles

BLOCK_BYTES = 8 << 20
KEPT_BYTES = 4096  # of what was scanned, for whatever lies across two blocks
TITLE_BYTES_MAX = 8192  # of a title's line; MediaWiki's titles have 255 bytes before escaping

PAGE = b"\n  <page>\n"
PAGE_END = b"\n  </page>"
TITLE = b"    <title>"
TITLE_END = b"</title>"
HEAD = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<mediawiki[\s>]")
HEAD_BYTES = 1024  # the most that is looked at for it
TAIL = re.compile(rb"\n  </page>\n</mediawiki>\s*\Z")
PACKED = (b"\x1f\x8b", b"7z\xbc\xaf", b"\xfd7zXZ", b"PK", b"\x28\xb5\x2f\xfd")

ENTITY = re.compile("&([^;]*)(;?)")
ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class BuildError(Exception):
    """There will be no index: what is wrong, and what to do about it."""

    def __init__(self, message: str, hint: str = "download or export it again") -> None:
        super().__init__(message)
        self.hint = hint


def pages(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The offset of every page and its title as the dump has it; then the sentinel and b"".

    How the dump was cut into blocks does not matter. Raises BuildError when it is no export, or
    not whole.
    """
    blocks = iter(blocks)
    held = b""
    base = 0  # the position of held[0] in the dump
    scanned = 0  # from where in `held` to look for the next page
    title = b""
    for block in blocks:
        held += block
        if len(held) >= HEAD_BYTES:
            break
    check_head(held)
    for block in itertools.chain([b""], blocks):
        held += block
        while (at := held.find(PAGE, scanned)) >= 0:
            start = at + len(PAGE)
            end = held.find(b"\n", start)
            if end < 0:
                break
            if title and not held.endswith(PAGE_END, 0, at):
                raise no_end(title, base + at)
            title = title_in(held, start, end, base)
            yield base + start, title
            scanned = end
        if at >= 0 and len(held) - at > TITLE_BYTES_MAX:
            raise no_title(base + at)
        drop = (at if at >= 0 else len(held)) - KEPT_BYTES
        if drop > 0:
            held = held[drop:]
            base += drop
            scanned = max(scanned - drop, 0)
    tail = TAIL.search(held)
    if tail is None and not held.rstrip().endswith(b"</mediawiki>"):
        raise BuildError("the dump is truncated: no </mediawiki> at its end")
    if not title:
        raise BuildError(
            "the dump holds no page",
            "an export's pages begin with a line `  <page>`, two spaces before it",
        )
    if tail is None:
        raise no_end(title, base + len(held))
    yield base + tail.start() + len(PAGE_END) - 1 + titles.BEFORE_NEXT_TITLE, b""


def check_head(held: bytes) -> None:
    if not HEAD.match(held, 0, HEAD_BYTES):
        hint = "it should begin with <mediawiki …>, as Special:Export and dumpBackup.php write it"
        if held.startswith(PACKED):
            hint = "it is an archive of another kind than bzip2; unpack it first"
        raise BuildError("this is no MediaWiki export", hint)


def title_in(held: bytes, start: int, end: int, base: int) -> bytes:
    if not (held.startswith(TITLE, start, end) and held.endswith(TITLE_END, start, end)):
        raise no_title(base + start)
    title = held[start + len(TITLE) : end - len(TITLE_END)]
    if not title:
        raise no_title(base + start)
    return title


def no_end(title: bytes, position: int) -> BuildError:
    name = title.decode(errors="replace")
    return BuildError(f"the dump is damaged: page “{name}” has no end before byte {position}")


def no_title(position: int) -> BuildError:
    return BuildError(f"the dump is damaged: a page without its title at byte {position}")


def unescape(title: bytes, offset: int) -> str:
    """The title itself. Raises BuildError when it is no XML text."""
    try:
        text = title.decode()
        if "&" in text:
            text = ENTITY.sub(character, text)
        titles.to_key(text)
    except (ValueError, KeyError, OverflowError):
        raise BuildError(
            f"the dump is damaged: a title that is no XML text at byte {offset}"
        ) from None
    return text


def character(reference: re.Match[str]) -> str:
    name, end = reference.groups()
    if not end:
        raise ValueError("an & that begins no reference")
    if name.startswith("#x"):
        return chr(int(name[2:], 16))
    if name.startswith("#"):
        return chr(int(name[1:]))
    return ENTITIES[name]


class Dump:
    """The file of a dump, packed or not, read as blocks. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0  # of the uncompressed dump

    def __enter__(self) -> Dump:
        try:
            self._file = open(self.path, "rb")
            status = os.fstat(self._file.fileno())
            self.packed = self._file.peek(3).startswith(b"BZh")
        except OSError as error:
            raise unreadable(self.path, error) from None
        self.mtime = status.st_mtime
        self.file_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._source = bz2.BZ2File(self._file) if self.packed else self._file
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.close()
        self._file.close()

    @property
    def position(self) -> int:
        """How much of the file has been read; of a pipe, how much of the dump."""
        return self.bytes_read if self.file_bytes is None else self._file.tell()

    def blocks(self) -> Iterator[bytes]:
        while True:
            try:
                block = self._source.read(BLOCK_BYTES)
            except EOFError:
                raise BuildError("the dump is truncated: its bzip2 stream has no end") from None
            except OSError as error:
                if error.errno is not None:
                    raise unreadable(self.path, error) from None
                raise BuildError(
                    "the dump is damaged: its bzip2 stream cannot be unpacked"
                ) from None
            if not block:
                return
            self.bytes_read += len(block)
            yield block


def unreadable(path: Path, error: OSError) -> BuildError:
    hint = "check the path" if isinstance(error, FileNotFoundError) else "check the file"
    return BuildError(f"cannot read {path}: {error.strerror}", hint)
