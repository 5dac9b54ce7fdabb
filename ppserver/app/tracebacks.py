"""Tracebacks for people who wrote the application: without the server's frames at their outer end.

Ours is a file below the package's folder, and what imports modules.
"""

from __future__ import annotations

import importlib
import os
import traceback
from types import FrameType, TracebackType

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def application_trace(error: BaseException) -> str:
    """The error's traceback without the frames of the server and of the import system."""
    _trim(error, set())
    return "".join(traceback.format_exception(error))


def _trim(error: BaseException | None, seen: set[int]) -> None:
    """Cut what is not the application's off the tracebacks of ``error`` and its causes."""
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = _first_foreign(error.__traceback__)
        _trim(error.__cause__, seen)
        error = error.__context__


def _first_foreign(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from its first frame that is not ours; all of it if there is none.

    A syntax error has no frame of the application: its text already shows the place.
    """
    found = trace
    while found is not None and _is_ours(found.tb_frame):
        found = found.tb_next
    return found


def _is_ours(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    return filename.startswith((_PACKAGE, "<frozen importlib")) or filename == importlib.__file__
