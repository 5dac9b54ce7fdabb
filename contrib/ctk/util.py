"""Small helpers of programs written for PyParallel."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from typing import Any, Self

__all__ = ["Dict", "timer", "try_int"]


def try_int(text: Any) -> int | None:
    """The integer that ``text`` is or says, None if it is none.

    Strings and bytes are read as ``int`` reads them, a float without a fraction counts as well.
    """
    try:
        if isinstance(text, (str, bytes, bytearray)):
            return int(text)
        if isinstance(text, float):
            return int(text) if text.is_integer() else None
        return int(operator.index(text))
    except (TypeError, ValueError):
        return None


class Dict(dict[str, Any]):
    """A dict whose items are attributes, too: ``d.x`` is ``d["x"]``.

    Methods of dict stay what they are: the item ``"items"`` is reached by ``d["items"]`` only.
    Names with two underscores at both ends are never looked up among the items.
    """

    def __getattr__(self, name: str) -> Any:
        if not _is_special(name):
            try:
                return self[name]
            except KeyError:
                pass
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if _is_special(name):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        if not _is_special(name) and name in self:
            del self[name]
        else:
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(key for key in self if isinstance(key, str))})

    def copy(self) -> Self:
        """A shallow copy of the same class."""
        return type(self)(self)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


class timer:  # noqa: N801 (the name is the original's)
    """A context manager that measures seconds.

    ::

        with timer() as t: ...
        t.elapsed

        with timer.timeit(): ...    # prints the elapsed time at the end

    A timer can be used again, and begins anew then.
    """

    def __init__(
        self, *, verbose: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """With ``verbose`` the elapsed time is printed at the end. ``clock`` gives seconds."""
        self._verbose = verbose
        self._clock = clock
        self._began: float | None = None
        self._ended: float | None = None

    @classmethod
    def timeit(cls, *, clock: Callable[[], float] = time.perf_counter) -> Self:
        """A timer that prints the elapsed time at the end."""
        return cls(verbose=True, clock=clock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.elapsed:.6f} s>"

    @property
    def elapsed(self) -> float:
        """Seconds from the beginning to the end, or until now if there was none yet; 0 before."""
        if self._began is None:
            return 0.0
        return (self._clock() if self._ended is None else self._ended) - self._began

    def __enter__(self) -> Self:
        self._ended = None
        self._began = self._clock()
        return self

    def __exit__(self, *args: Any) -> None:
        self._ended = self._clock()
        if self._verbose:
            print(f"{self.elapsed:.6f} s", flush=True)
