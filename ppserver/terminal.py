"""What SIGHUP means: reload, or the terminal was closed."""

from __future__ import annotations

import os

_STARTED_ON = os.isatty(2)


def is_gone() -> bool:
    """Whether the terminal this process was started on, if any, has been closed."""
    return _STARTED_ON and not os.isatty(2)
