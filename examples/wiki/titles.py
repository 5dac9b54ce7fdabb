"""What the builder and the application agree on: how a title becomes a key, what an offset means.

datrie allows at most 255 different characters and loses what is outside its alphabet. A key is
therefore the UTF-8 bytes of a title, each written as the Latin-1 character of the same number.
Plain ASCII titles look the same, the order of keys is the order of code points, and a prefix of a
title is a prefix of its key.

An offset is the position in the uncompressed dump of the start of the line that holds `<title>`.
With the two spaces of indentation of a MediaWiki export these constants lead from there to the
page's first and last byte::

      <page>\\n    <title>...       `<` is 7 bytes before the line of the title
      </page>\\n  <page>\\n    <title>...       `>` is 11 bytes before the next page's
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import datrie  # type: ignore[import-not-found]
import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.uint64]

OFFSETS = "titles_offsets.npy"
TITLES = "titles.trie"
COMPACT = "titles.basetrie"
MANIFEST = "index.json"
VERSION = 1  # of the index's format, as the manifest has it

# All that a key can consist of; 0 ends a string in datrie and cannot be in a title.
ALPHABET = "".join(map(chr, range(1, 256)))

BEFORE_TITLE = 7  # from the line of a title back to the `<` of its `<page>`
BEFORE_NEXT_TITLE = 11  # from the line of a title back to the `>` of the `</page>` before it


class IndexMissingError(Exception):
    """The folder holds no complete index; the message says how to make one."""


def to_key(title: str) -> str:
    """The key of a title, or of the beginning of one.

    Raises ValueError for what no title can hold, a NUL or half of a surrogate pair: datrie would
    take the part before the NUL for the whole.
    """
    if "\0" in title:
        raise ValueError("a title holds no NUL")
    return title.encode().decode("latin-1")


def from_key(key: str) -> str:
    """The title of a key. Raises ValueError for what is no key."""
    return key.encode("latin-1").decode()


def new_trie() -> Any:
    """An empty `datrie.Trie`, key → list of offsets."""
    return datrie.Trie(ALPHABET)


def new_compact() -> Any:
    """An empty `datrie.BaseTrie`, key → index into the array of offsets."""
    return datrie.BaseTrie(ALPHABET)


def page_range(offsets: Offsets, offset: int) -> tuple[int, int]:
    """The first and the last byte of the page with this offset; an alias has a negative one."""
    position = abs(offset)
    # Compared as uint64: a Python int among them would turn the whole array into float64.
    following = offsets[np.searchsorted(offsets, np.uint64(position), "right")]
    return position - BEFORE_TITLE, int(following) - BEFORE_NEXT_TITLE


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What the build wrote last: where it is nothing is missing. Raises IndexMissingError."""
    path = Path(folder) / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        version = manifest["version"]
    except FileNotFoundError:
        raise IndexMissingError(
            f"{folder} holds no index; make it with: python -m examples.wiki.build DUMP.xml"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise IndexMissingError(
            f"{path} is damaged; build the index again: python -m examples.wiki.build DUMP.xml"
        ) from None
    if version != VERSION:
        raise IndexMissingError(
            f"{path} is of version {version}, not {VERSION}; build the index again: "
            "python -m examples.wiki.build DUMP.xml"
        )
    return manifest


class Index(NamedTuple):
    """An index in memory. `titles` is a Trie, or the BaseTrie of the compact variant."""

    manifest: dict[str, Any]
    offsets: Offsets
    titles: Any


def load(folder: str | Path = ".") -> Index:
    """Reads a complete index. Raises IndexMissingError where there is none."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    offsets: Offsets = np.load(folder / OFFSETS)
    if manifest["compact"]:
        titles = datrie.BaseTrie.load(str(folder / COMPACT))
    else:
        titles = datrie.Trie.load(str(folder / TITLES))
    return Index(manifest, offsets, titles)
