"""Places for contexts in the shared board, each with a door to hand connections through."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Sequence

from ppserver._native import Board

_SEATS_MAX = 256
_DOOR_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Seat:
    """One context's place: its slot of the board, its inbox, and the doors of all."""

    board: Board
    index: int
    inbox: int
    doors: Sequence[int]
    local: bool


class Seats:
    """A board and a door for each of its slots.

    Made before anything is forked, and inherited: every context keeps its own inbox and the
    writing ends of all doors. A connection that waits in a door survives the context it was meant
    for; whoever sits there next takes it. One thread uses it at a time.
    """

    def __init__(self, contexts: int, balance: str = "load") -> None:
        # A reload doubles the contexts for a while, and SIGTTIN may add some.
        count = min(2 * contexts + 2, _SEATS_MAX)
        self.board = Board(count)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._free = list(range(count))
        for _ in range(count if balance == "load" else 0):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with contextlib.suppress(OSError):  # Room for a storm; the kernel has its own limit.
                pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _DOOR_BYTES)
            self._pairs.append(pair)

    def take(self) -> int | None:
        """A free seat's number; None if all are taken (then a context serves for itself)."""
        return self._free.pop(0) if self._free else None

    def give(self, index: int | None) -> None:
        """Nobody sits there any more, however that came about.

        It is the next to be taken, since connections may wait in its door.
        """
        if index is not None:
            self.board.vacate(index)
            self._free.insert(0, index)

    def seat(self, index: int | None, *, local: bool) -> Seat | None:
        """What the context on seat ``index`` needs; ``local`` if all are in this process."""
        if index is None:
            return None
        if not self._pairs:
            return Seat(self.board, index, -1, (), local)
        doors = [-1 if writer.fileno() < 0 else writer.fileno() for _, writer in self._pairs]
        return Seat(self.board, index, self._pairs[index][0].fileno(), doors, local)

    def keep_only(self, index: int | None) -> None:
        """In a forked context: close what only others read."""
        for other, (reader, _) in enumerate(self._pairs):
            if other != index:
                reader.close()

    def close(self) -> None:
        """Close every door here."""
        for reader, writer in self._pairs:
            reader.close()
            writer.close()
        self._free.clear()
