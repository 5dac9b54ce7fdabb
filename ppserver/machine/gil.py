"""The global interpreter lock: whether there is one, who brought it back, and ``--gil``.

A free-threaded CPython (PEP 703) switches its GIL on, for good, when an extension module is
imported that does not say that it can do without. ``PYTHON_GIL=0`` in the environment keeps it
off whatever is imported.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from ppserver.config import Config
from ppserver.errors import ConfigError

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
_VARIABLE = "PYTHON_GIL"


def enabled() -> bool:
    """Whether this process has a GIL now."""
    check: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return True if check is None else check()


def enforce(config: Config, *, may_execute: bool = False) -> None:
    """See to ``config.gil``; starts the program anew if that takes it and ``may_execute`` is set.

    Raises ConfigError if this interpreter cannot have it so.
    """
    wanted = {"auto": "", "off": "0", "on": "1"}[config.gil]
    if not wanted or (config.gil == "on" and not FREE_THREADED):
        return
    if not FREE_THREADED:
        raise ConfigError(
            "off needs a free-threaded CPython; this one always has a GIL",
            hint="python3.13t or python3.14t, for example by: uv python install 3.14t",
            setting="gil",
        )
    # Off now is not enough: an import may switch it on, unless the interpreter was told otherwise.
    told = sys._xoptions.get("gil", os.environ.get(_VARIABLE))
    if told == wanted:
        return
    if "gil" in sys._xoptions or not may_execute:
        raise ConfigError(
            f"the interpreter was not started with {_VARIABLE}={wanted}",
            hint=f"set {_VARIABLE}={wanted} in the environment, and use no -X gil",
            setting="gil",
        )
    _execute_again(wanted)


def _execute_again(wanted: str) -> NoReturn:
    """Replace this process by the same program with the GIL as wanted."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.environ[_VARIABLE] = wanted
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class Watch:
    """While the ``with`` block runs, notes which import switches the GIL on.

    ``culprit`` is the module's name, or ``""`` if none did. It looks after each extension module
    that is loaded, in whatever thread, so it costs nothing per ordinary import.
    """

    def __init__(self) -> None:
        self.culprit = ""
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Watch:
        loader = importlib.machinery.ExtensionFileLoader
        if FREE_THREADED and not enabled():
            for name in ("create_module", "exec_module"):
                self._before[name] = getattr(loader, name)
                setattr(loader, name, self._watching(self._before[name]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, method in self._before.items():
            setattr(importlib.machinery.ExtensionFileLoader, name, method)
        self._before.clear()

    def _watching(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(loader: Any, subject: Any) -> Any:
            result = method(loader, subject)
            if not self.culprit and enabled():
                self.culprit = str(getattr(subject, "name", getattr(subject, "__name__", "?")))
            return result

        return watched
