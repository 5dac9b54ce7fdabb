"""Makes the index of a MediaWiki dump: `titles_offsets.npy`, `titles.trie` and `index.json`.

    python -m examples.wiki.build DUMP.xml[.bz2] [--output DIR]

One pass over the dump finds the titles. They are sorted outside of memory, since datrie takes
sorted keys many times faster than others; README.md has the figures. The files are written
to a folder of their own and moved to their places when all of them are whole; `index.json` comes
last, so that there is no index where it is missing.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import errno
import fcntl
import gc
import json
import marshal
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import datrie  # type: ignore[import-not-found]
import numpy as np

from . import titles
from .progress import Progress
from .scan import BuildError, Dump, pages, unescape

RUN_RECORDS = 500_000  # titles sorted at once: some 50 MB
BATCH_RECORDS = 4096  # read back at once from each run
TEMPORARY = ".wiki-index-"
EXACT, ALIAS = b"\0\0", b"\0\1"
RESERVED_CELLS = 254  # what `reserve` gets at once


class Options(NamedTuple):
    dump: Path
    output: Path
    compact: bool = False
    aliases: bool = True
    decompress: bool = False
    quiet: bool = False
    run_records: int = RUN_RECORDS


class Sorter:
    """Sorts more records than fit into memory: beyond the length of a run they go to a file.

    A record is a key, EXACT or ALIAS, and four bytes with the number of the page. No key holds a
    NUL, so that records sort by key, exact titles before aliases, and then by page.
    """

    def __init__(self, folder: Path, run_records: int) -> None:
        self._folder = folder
        self._run_records = run_records
        self._held: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._runs: list[list[tuple[int, int]]] = []  # position and size of each run's batches
        self.count = 0

    def add(self, record: bytes) -> None:
        self._held.append(record)
        self.count += 1
        if len(self._held) >= self._run_records:
            self._spill()

    def finish(self) -> Iterator[bytes]:
        """All records in order; none can be added any more."""
        if self._file is None:
            self._held.sort()
            return iter(self._held)
        if self._held:
            self._spill()
        return merged([self._read(run) for run in self._runs])

    def close(self) -> None:
        self._held = []
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        self._held.sort()
        run = []
        with writing(self._folder):
            if self._file is None:
                # It has no name, so that nothing is left of it even if the process is killed.
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            for first in range(0, len(self._held), BATCH_RECORDS):
                batch = marshal.dumps(self._held[first : first + BATCH_RECORDS])
                run.append((self._file.tell(), len(batch)))
                self._file.write(batch)
            self._file.flush()
        self._runs.append(run)
        self._held = []

    def _read(self, run: list[tuple[int, int]]) -> Iterator[list[bytes]]:
        assert self._file is not None
        for position, size in run:
            yield marshal.loads(os.pread(self._file.fileno(), size, position))


def merged(runs: list[Iterator[list[bytes]]]) -> Iterator[bytes]:
    """The records of all runs, each of which comes as sorted lists, in order.

    Sorting what a round can give, presorted as it is, takes less time than a heap's Python code.
    """
    held = [(next(run), 0, run) for run in runs]  # a list, where in it, and what follows
    while held:
        bound = min(batch[-1] for batch, _, _ in held)
        ready: list[bytes] = []
        left = []
        for batch, start, run in held:
            end = bisect_right(batch, bound, start)
            ready += batch[start:end]
            if end == len(batch):
                batch, end = next(run, []), 0
            if batch:
                left.append((batch, end, run))
        held = left
        ready.sort()
        yield from ready


def collect(
    dump: Dump, sorter: Sorter, aliases: bool, copy: IO[bytes] | None, quiet: bool
) -> array.array[int]:
    """The offsets of all pages and the sentinel; the titles are in the sorter then."""
    offsets = array.array("Q")
    blocks = dump.blocks() if copy is None else copied(dump.blocks(), copy)
    with Progress("reading", dump.file_bytes, "pages", quiet=quiet) as progress:
        for page, (offset, title) in enumerate(pages(blocks)):
            offsets.append(offset)
            if title:
                add_title(sorter, title, offset, page, aliases)
            if not page & 0xFFF:
                progress.update(dump.position, page)
    return offsets


def copied(blocks: Iterable[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    for block in blocks:
        with writing(Path(copy.name).parent):
            copy.write(block)
        yield block


def add_title(sorter: Sorter, title: bytes, offset: int, page: int, aliases: bool) -> None:
    number = page.to_bytes(4, "big")
    if title.isascii() and b"&" not in title and b"\0" not in title:
        key, lower = title, title.lower()
    else:
        text = unescape(title, offset)
        key, lower = text.encode(), text.lower().encode()
    sorter.add(key + EXACT + number)
    if aliases and lower != key:
        sorter.add(lower + ALIAS + number)


def fill(
    records: Iterable[bytes], offsets: array.array[int], compact: bool, progress: Progress
) -> tuple[Any, int]:
    """The trie of records that come sorted, and how many keys it should have."""
    trie = titles.new_compact() if compact else titles.new_trie()
    last = b""
    values: list[int] = []
    keys = 0
    used = 0
    for count, record in enumerate(records):
        if not count & 0xFFF:
            progress.update(count, count)
        key = record[:-6]
        used += len(key)
        if used >= RESERVED_CELLS:
            used = 0
            reserve(trie)
        page = int.from_bytes(record[-4:], "big")
        if key != last:
            last = key
            keys += 1
            if compact:
                trie[key.decode("latin-1")] = page
                continue
            values = []
            trie[key.decode("latin-1")] = values
        # The compact variant keeps the first of several pages with one title, which a wiki that
        # is in order does not have; nobody reads its `values`.
        values.append(offsets[page] if record[-6:-4] == EXACT else -offsets[page])
    return trie, keys


def reserve(trie: Any) -> None:
    """Makes sure that the trie has free cells at its end, for as many characters of new keys.

    libdatrie gets cells one by one, as it needs them. When none is free it looks at every cell
    there is before it gets another: with millions of them one key takes milliseconds. A node with
    the first and the last character of the alphabet has all cells between them allocated, and
    leaves them free. No title has such a key, for UTF-8 has no byte 255.
    """
    for end in "\x01\xff":
        datrie.BaseTrie.__setitem__(trie, "\xff" + end, 0)  # not Trie's, that would keep a value
    for end in "\x01\xff":
        datrie.BaseTrie.__delitem__(trie, "\xff" + end)


class Whole:
    """As much of a file as `Trie.write` wants, with no part of a write left out.

    A raw file may write less than it was given, of which pickle takes no notice.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.pickled_from: int | None = None  # where the trie ends and its values begin

    def fileno(self) -> int:
        return self._fd

    def flush(self) -> None:
        pass

    def write(self, data: bytes) -> int:
        if self.pickled_from is None:
            self.pickled_from = os.lseek(self._fd, 0, os.SEEK_CUR)
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        return len(data)


def write_trie(trie: Any, path: Path) -> int:
    """Returns where in the file the trie ends, and its values begin if it has any."""
    with open(path, "xb", buffering=0) as file:
        whole = Whole(file.fileno())
        trie.write(whole)
        os.fsync(file.fileno())
        return file.tell() if whole.pickled_from is None else whole.pickled_from


def check_trie(path: Path, end: int, keys: int) -> None:
    """Reads the trie again, without its values.

    datrie tells neither of a key that it had no memory for, nor of the last of its own part of
    the file that found no space.
    """
    with open(path, "rb", buffering=0) as file:
        try:
            written = datrie.BaseTrie.read(file)
        except datrie.DatrieError:
            raise OSError(f"{path.name} is not whole") from None
        if file.tell() != end:
            raise OSError(f"{path.name} is not whole")
        if len(written) != keys:
            raise MemoryError


def write_offsets(offsets: array.array[int], path: Path) -> None:
    numbers = np.frombuffer(offsets, dtype=np.uint64)
    with open(path, "xb") as file:
        # Not by np.save, whose message when there is no space does not say so.
        header = np.lib.format.header_data_from_array_1_0(numbers)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(numbers.data)
        sync(file)


def write_manifest(manifest: dict[str, Any], path: Path) -> None:
    with open(path, "xb") as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
        sync(file)


def sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what goes wrong while writing into this folder into a BuildError."""
    try:
        yield
    except OSError as error:
        # Errors that are datrie's own do not say why.
        reason = error.strerror or f"{error}; most likely no space is left"
        full = error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise BuildError(
            f"cannot write to {folder}: {reason}",
            "free some space there, or choose another folder with --output"
            if full
            else "choose another folder with --output",
        ) from None


@contextlib.contextmanager
def output_folder(output: Path) -> Iterator[Path]:
    """A folder inside of the output folder, for this build alone; gone at the end."""
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    with contextlib.ExitStack() as stack:
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            for folder in reversed(made):  # the last one made is the first to go
                stack.callback(remove_if_empty, folder)
            lock = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(
                f"another build is writing to {output}",
                "wait for its end, or choose another folder with --output",
            ) from None
        with writing(output):
            for left in output.glob(TEMPORARY + "*"):  # by a build that was killed
                shutil.rmtree(left)
            made_here = tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=output)
        yield Path(stack.enter_context(made_here))
        with writing(output):
            os.fsync(lock)


def remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def unpacked_path(dump: Path) -> Path:
    return dump.with_suffix("") if dump.suffix == ".bz2" else dump.with_name(dump.name + ".xml")


@contextlib.contextmanager
def unpacked_copy(dump: Dump, wanted: bool) -> Iterator[IO[bytes] | None]:
    """A file beside the packed dump to unpack it into; `publish` gives it its name."""
    if not wanted or not dump.packed:
        yield None
        return
    path = unpacked_path(dump.path)
    with writing(path.parent):
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=path.parent, prefix=f".{path.name}-", delete=False
        )
        os.chmod(file.fileno(), 0o666 & ~umask())
    try:
        with file:
            yield file
    finally:
        with contextlib.suppress(FileNotFoundError):  # when it has its name
            os.unlink(file.name)


def umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def publish(folder: Path, output: Path, copy: IO[bytes] | None, dump: Dump) -> None:
    """Moves what was built to its place. No signal can come in between."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with writing(output):
            # An old index ends here, and with it the variant that is not made anew.
            for name in (titles.MANIFEST, titles.TITLES, titles.COMPACT):
                (output / name).unlink(missing_ok=True)
            if copy is not None:
                os.replace(copy.name, unpacked_path(dump.path))
            for path in folder.iterdir():
                if path.name != titles.MANIFEST:
                    path.replace(output / path.name)
            (folder / titles.MANIFEST).replace(output / titles.MANIFEST)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def build(options: Options) -> dict[str, Any]:
    """Makes the index and returns its manifest. Raises BuildError, and leaves nothing then."""
    with (
        Dump(options.dump) as dump,
        output_folder(options.output) as folder,
        unpacked_copy(dump, options.decompress) as copy,
        contextlib.closing(Sorter(folder, options.run_records)) as sorter,
    ):
        say(options, f"reading {options.dump}")
        aliases = options.aliases and not options.compact
        offsets = collect(dump, sorter, aliases, copy, options.quiet)
        with Progress("indexing", sorter.count, "keys", quiet=options.quiet) as progress:
            trie, keys = fill(sorter.finish(), offsets, options.compact, progress)
        say(options, "writing")
        name = titles.COMPACT if options.compact else titles.TITLES
        with writing(options.output):
            write_offsets(offsets, folder / titles.OFFSETS)
            end = write_trie(trie, folder / name)
            del trie  # for there is no need of memory for two
            check_trie(folder / name, end, keys)
            manifest = {
                "version": titles.VERSION,
                "dump": unpacked_path(options.dump).name if dump.packed else options.dump.name,
                "dump_bytes": dump.bytes_read,
                "dump_mtime": dump.mtime,
                "packed": dump.packed,
                "pages": len(offsets) - 1,
                "keys": keys,
                "aliases": aliases,
                "compact": options.compact,
            }
            write_manifest(manifest, folder / titles.MANIFEST)
        if copy is not None:
            with writing(options.dump.parent):
                sync(copy)
                os.utime(copy.fileno(), (dump.mtime, dump.mtime))
        publish(folder, options.output, copy, dump)
    return manifest


def say(options: Options, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m examples.wiki.build",
        description="Make the index of a MediaWiki dump, for the wiki search.",
    )
    parser.add_argument("dump", type=Path, help="an export of MediaWiki, plain or bzip2")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the index (default: the dump's)"
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="a smaller trie of exact titles only, with indices in place of lists of offsets",
    )
    parser.add_argument("--no-aliases", action="store_true", help="leave lower-cased titles out")
    parser.add_argument(
        "--decompress", action="store_true", help="also write a packed dump unpacked beside it"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    given = parser.parse_args(arguments)
    return Options(
        dump=given.dump,
        output=given.output or given.dump.parent,
        compact=given.compact,
        aliases=not given.no_aliases,
        decompress=given.decompress,
        quiet=given.quiet,
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    started = time.monotonic()
    # Millions of lists live to the end; looking through them for cycles finds none.
    collecting = gc.isenabled()
    gc.disable()
    try:
        manifest = build(options)
    except BuildError as error:
        print(f"error: {error}\n  {error.hint}", file=sys.stderr)
        return 1
    except MemoryError:
        print(
            "error: not enough memory for the index\n  --compact or --no-aliases need less",
            file=sys.stderr,
        )
        return 1
    finally:
        if collecting:
            gc.enable()
    seconds = time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(
        options,
        f"{manifest['pages']:,} pages and {manifest['keys']:,} keys in {seconds:.1f} s "
        f"({manifest['pages'] / seconds:,.0f} pages/s), {peak_mb:,.0f} MB of memory at most\n"
        f"the index is in {options.output}",
    )
    if manifest["packed"] and not options.decompress:
        say(
            options,
            "its offsets are those of the unpacked dump; to serve pages, unpack it, too:\n"
            f"  bunzip2 --keep {options.dump}   (or build with --decompress)",
        )
    return 0


def terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def run() -> NoReturn:
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; no index was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
