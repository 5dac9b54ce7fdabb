"""How far a long run is, on standard error: tqdm's bar on a terminal, else a line now and then."""

from __future__ import annotations

import importlib
import sys
import time
from types import TracebackType
from typing import Any, Self

INTERVAL_S = 3.0  # between plain lines


class Progress:
    """Counts things done, and how much of the whole that is; a context manager.

    `total` is what `update(done, count)` reaches in `done`, or None when nobody knows; the rate
    is that of `count`, for a dump is measured in bytes, but its pages are what one waits for.
    """

    def __init__(self, label: str, total: int | None, unit: str, *, quiet: bool = False) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.quiet = quiet
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._next_line = self._started + INTERVAL_S
        if not self.quiet and sys.stderr.isatty():
            try:
                tqdm = importlib.import_module("tqdm").tqdm
            except ImportError:
                pass  # the plain lines will do
            else:
                self._bar = tqdm(desc=self.label, total=self.total, bar_format=self._form(""))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, count: int) -> None:
        if self.quiet:
            return
        now = time.monotonic()
        if self._bar is not None:
            # The text first, for the update decides whether it is time to draw.
            self._bar.bar_format = self._form(self._counted(count, now))
            self._bar.update(done - self._bar.n)
        elif now >= self._next_line:
            self._next_line = now + INTERVAL_S
            print(f"{self.label}: {self._line(done, count, now)}", file=sys.stderr, flush=True)

    def _form(self, counted: str) -> str:
        if self.total is None:
            return "{desc}: " + counted + " [{elapsed}]"
        return "{desc}: {percentage:3.0f}%|{bar}| " + counted + " [{elapsed}<{remaining}]"

    def _counted(self, count: int, now: float) -> str:
        rate = count / max(now - self._started, 1e-9)
        return f"{count:,} {self.unit}, {rate:,.0f} {self.unit}/s"

    def _line(self, done: int, count: int, now: float) -> str:
        text = self._counted(count, now)
        if not self.total or not done:
            return text
        left_s = round((now - self._started) * max(self.total - done, 0) / done)
        return f"{done / self.total:.0%}, {text}, ETA {left_s // 60}:{left_s % 60:02d}"
