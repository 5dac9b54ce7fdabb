"""What the kernel writes into its files, and how it writes sets of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_NUMBER_MAX = 1 << 16


def parse_list(text: str | None) -> frozenset[int] | None:
    """The numbers of a kernel list such as ``0-3,8``; None if it is empty or malformed."""
    found: set[int] = set()
    for part in (text or "").strip().split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match is None or int(match[2] or match[1]) >= _NUMBER_MAX:
            return None
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found) or None


def format_list(numbers: Iterable[int]) -> str:
    """The opposite of :func:`parse_list`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def read_text(path: Path) -> str | None:
    """The text of a file without white space around it; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
