"""Makes the data that the benchmarks of shared data read: `python data.py FOLDER TITLES`.

A trie of made-up titles, each with its number, and a sorted array of offsets. The same in every
run; files that are there already are kept. Runs inside the interpreter under measurement.
"""

import os
import sys
from pathlib import Path

from multi_apps import PRIME, title


def make_trie(path: Path, count: int) -> None:
    import datrie  # type: ignore[import-not-found, unused-ignore]

    trie = datrie.Trie(ranges=[("A", "Z"), ("_", "_"), ("a", "z")])
    # In order it grows with the least moving about.
    numbers = sorted(range(count), key=title)
    for number in numbers:
        trie[title(number)] = number
    trie.save(str(path))


def make_offsets(path: Path, count: int) -> None:
    import numpy  # type: ignore[import-not-found, unused-ignore]

    with path.open("wb") as file:
        numpy.save(file, numpy.arange(count, dtype=numpy.int64) * 7)


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    if not 0 < count < PRIME:
        sys.exit(f"titles: expected 1 to {PRIME - 1}")
    folder.mkdir(parents=True, exist_ok=True)
    makers = {f"titles-{count}.trie": make_trie, f"offsets-{count}.npy": make_offsets}
    for name, make in makers.items():
        if not (folder / name).exists():
            part = folder / f"{name}.{os.getpid()}"
            make(part, count)
            part.replace(folder / name)


if __name__ == "__main__":
    main()
