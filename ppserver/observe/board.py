"""How a running server's contexts are doing: its board, read from outside.

::

    python -m ppserver.board PID

prints a line for every context of the server whose supervisor (or host) is process ``PID``. Nothing
is asked of the server: the board is shared memory, and the kernel decides who may open it (the
user the server runs as, and root).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ppserver._native import Board
from ppserver.errors import PPServerError

_MEMORY_NAME = "memfd:ppserver-board"
_COLUMNS = (
    "slot",
    "pid",
    "connections",
    "in_flight",
    "busy",
    "requests",
    "handed_in",
    "handed_out",
)


def of_process(pid: int) -> Board:
    """The board of the server that process ``pid`` belongs to.

    Raises PPServerError if there is no such process, it has no board (one context alone has none),
    or it may not be looked at.
    """
    directory = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(directory):
            if _MEMORY_NAME in _target(f"{directory}/{name}"):
                fd = os.open(f"{directory}/{name}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    return Board(fd=fd)
                finally:
                    os.close(fd)
    except OSError as error:
        raise PPServerError(f"cannot look at process {pid}: {error.strerror}") from None
    raise PPServerError(f"process {pid} has no board: it is no ppserver with several contexts")


def contexts(board: Board) -> list[dict[str, int]]:
    """What each context that is there now has written; ``slot`` is its place on the board.

    Times are microseconds; ``busy_permille`` is the share of the last 50 ms in which it did not
    wait, 1000 when it has been away from its loop for longer.
    """
    found = []
    for slot in range(board.slots):
        entry = board.read(slot)
        if entry["life"]:
            found.append({"slot": slot, **entry})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the contexts of a server; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ppserver.board", description="Show how the contexts of a server are doing."
    )
    parser.add_argument("pid", type=int, help="process number of the server")
    try:
        board = of_process(parser.parse_args(argv).pid)
    except PPServerError as error:
        print(f"ppserver: error: {error}", file=sys.stderr)
        return 1
    print("  ".join(f"{name:>11}" for name in _COLUMNS))
    for entry in contexts(board):
        entry["busy"] = entry["busy_permille"] // 10
        cells = [f"{entry[name]}{'%' if name == 'busy' else ''}" for name in _COLUMNS]
        print("  ".join(f"{cell:>11}" for cell in cells))
    return 0


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # Closed meanwhile.
        return ""
