"""Numbers that contexts change together: counters and small arrays in shared memory.

Make them while the application is imported: forked contexts inherit their memory, threads have
the objects themselves. Whatever a context makes later is its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ppserver._native import Array, Counter, shared_seal

__all__ = ["Array", "Counter"]


@contextlib.contextmanager
def sealed() -> Iterator[None]:
    """For as long as contexts run: making an object that no other would see is a RuntimeError."""
    shared_seal(True)
    try:
        yield
    finally:
        shared_seal(False)
