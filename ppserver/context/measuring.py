"""What coverage.py measures in processes that the server forks is saved when they end.

``coverage run -m ppserver ... --cores 2`` starts it in one process; its exit function, which saves,
belongs to that one. Each forked process saves into a file of its own, as coverage does with
``parallel = true``; ``coverage combine`` puts them together.
"""

from __future__ import annotations

import contextlib
import sys


def save() -> None:
    """Save what was measured in this forked process, if anything is. Never raises."""
    coverage = sys.modules.get("coverage")
    if coverage is None:
        return
    with contextlib.suppress(Exception):  # Names with an underscore may be others some day.
        current = coverage.Coverage.current()
        if current is None:
            return
        current.stop()
        if not current.get_option("run:parallel"):
            current._init_data(None)
            current._data._suffix = True  # Else all would write into one file.
        current.save()
