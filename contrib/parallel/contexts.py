"""How many contexts there are, and what they do: of all of them, whoever asks.

PyParallel had a context for each connection; here one is a core's, with its loop and its
connections.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from parallel import stats, work
from parallel.registry import registry

__all__ = [
    "active_contexts",
    "active_count",
    "active_hogs",
    "active_io_loops",
    "is_active",
    "persisted_contexts",
]

_HOG_SECONDS = 0.05


def active_contexts() -> int:
    """Contexts that run."""
    return len(registry.contexts())


def active_io_loops() -> int:
    """Contexts that take connections: those that run and are not about to end."""
    return _open(registry.contexts())


def active_hogs() -> int:
    """Contexts whose loop has not come round for 50 ms, because a callback keeps it that no other
    thread could take it from."""
    return _hogs(registry.contexts())


def _open(rows: Sequence[Mapping[str, int]]) -> int:
    return sum(row["life"] == 1 for row in rows)


def _hogs(rows: Sequence[Mapping[str, int]]) -> int:
    late_us = (time.monotonic() - _HOG_SECONDS) * 1e6
    return sum(row["busy_since_us"] != 0 and row["heartbeat_us"] < late_us for row in rows)


def persisted_contexts() -> int:
    """Connections, in all contexts: each has a transport and a protocol that last as long."""
    return sum(row["connections"] for row in registry.contexts())


def active_count() -> int:
    """What is being carried out: connections of all contexts, and what this process has been
    submitted."""
    return persisted_contexts() + work.pending()


def is_active() -> bool:
    """Whether anything is being carried out."""
    return active_count() > 0


def _totals() -> dict[str, int]:
    """For context_stats(): without a running server, this process counts as one context."""
    rows = registry.contexts()
    if not rows:
        return {}
    return {
        "active_hogs": _hogs(rows),
        "active_contexts": len(rows),
        "active_io_loops": _open(rows),
    }


stats.provider = _totals
