"""Loads data once, reads it in every context, and says how much memory that un-shared.

TEST_KIND is what to load and TEST_SIZE how much of it. `/` answers with JSON.
"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

from support import record

import ppserver

data: dict[str, Any] = {}


def load_lists(size: int) -> Any:
    return {number: [number] for number in range(1000, 1000 + size)}


def read_lists(lists: Any) -> int:
    return sum(lists[number][0] - number for number in range(1000, 1000 + len(lists)))


DIGITS = str.maketrans("0123456789", "abcdefghij")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def titles(size: int) -> Iterator[str]:
    chosen = random.Random(5)
    for number in range(size):
        yield "".join(chosen.choices(LETTERS, k=4)) + f"{number:07d}".translate(DIGITS)


def fill(trie: Any, size: int) -> Any:
    pairs = [(title, number) for number, title in enumerate(titles(size), 1000)]
    for title, number in sorted(pairs):
        trie[title] = number
    return trie


def load_trie(size: int) -> Any:
    import datrie

    return fill(datrie.Trie(LETTERS), size)


def load_base_trie(size: int) -> Any:
    import datrie

    return fill(datrie.BaseTrie(LETTERS), size)


def read_trie(trie: Any) -> int:
    return sum(trie[title] - number for number, title in enumerate(titles(len(trie)), 1000))


def load_frame(size: int) -> Any:
    import pandas

    names = [f"row {number} of the frame" for number in range(size)]
    return pandas.DataFrame({"name": pandas.Series(names, dtype=object), "number": range(size)})


def read_frame(frame: Any) -> int:
    return sum(len(name) for name in frame["name"].array) - sum(
        len(str(number)) + len("row  of the frame") for number in range(len(frame))
    )


def load_numpy(size: int) -> Any:
    import numpy

    return numpy.arange(size)


def read_numpy(numbers: Any) -> int:
    return int(numbers.sum()) - sum(range(len(numbers)))


def load_ints(size: int) -> Any:
    return list(range(1000, 1000 + size))


def read_ints(numbers: Any) -> int:
    return sum(numbers) - sum(range(1000, 1000 + len(numbers)))


def load_bytes(size: int) -> Any:
    return b"x" * size * 8


def read_bytes(text: Any) -> int:
    return int(text.count(b"x") - len(text))


def load_objects(size: int) -> Any:
    return [Record(number, f"record {number}") for number in range(size)]


class Record:
    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name


def read_objects(records: Any) -> int:
    return sum(one.number for one in records) - sum(range(len(records)))


def load_array(size: int) -> Any:
    import array

    return array.array("q", range(size))


def load_mmap(size: int) -> Any:
    import mmap

    mapping = mmap.mmap(-1, size * 8)
    mapping.write(b"x" * size * 8)
    return mapping


def read_mmap(mapping: Any) -> int:
    return sum(mapping.find(b"y", start) + 1 for start in range(0, len(mapping), 65536))


KINDS: dict[str, tuple[Callable[[int], Any], Callable[[Any], int]]] = {
    "array": (load_array, lambda numbers: sum(numbers) - sum(range(len(numbers)))),
    "base_trie": (load_base_trie, read_trie),
    "bytes": (load_bytes, read_bytes),
    "frame": (load_frame, read_frame),
    "ints": (load_ints, read_ints),
    "lists": (load_lists, read_lists),
    "mmap": (load_mmap, read_mmap),
    "numpy": (load_numpy, read_numpy),
    "objects": (load_objects, read_objects),
    "trie": (load_trie, read_trie),
}


@ppserver.on_start
def load() -> None:
    record(f"on_start {os.environ['TEST_KIND']}")
    data["loaded"] = KINDS[os.environ["TEST_KIND"]][0](int(os.environ["TEST_SIZE"]))


def private_bytes() -> int:
    """What this process has written to and shares with nobody."""
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Private_Dirty")


def measure() -> dict[str, Any]:
    """Reads all of the data; what is private afterwards that was not before.

    A context pays for more than the data when it runs code for the first time: caches in byte
    code, what a library sets up when it is called, memory of the allocator's. A little data of
    its own, read in the same way, takes that beforehand.
    """
    load, read = KINDS[os.environ["TEST_KIND"]]
    own = load(1000)
    for _ in range(3):
        assert read(own) == 0
        gc.collect()
        private_bytes()
    before = private_bytes()
    difference = read(data["loaded"])
    gc.collect()
    unshared = private_bytes() - before
    return {
        "pid": os.getpid(),
        "frozen": ppserver.is_frozen(data["loaded"]),
        "wrong": difference,
        "unshared": unshared,
    }


async def app(scope: Any, receive: Any, send: Any) -> None:
    """ASGI, so that no other thread takes over, and is started, while it measures."""
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(measure()).encode()})
