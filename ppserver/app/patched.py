"""Refuse what gevent and eventlet make of Python when they patch it.

Their threads, sockets and waits need a loop of their own, which does not run here: a server whose
modules are replaced under its feet would neither serve nor end.
"""

from __future__ import annotations

import sys
from typing import Any

from ppserver.errors import LoadError

_MODULES = ("_thread", "thread", "threading", "socket", "select", "selectors", "time")


def refuse(name: str) -> None:
    """LoadError if ``name``, or what it imported, has patched this process."""
    for library, module, question in (
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ):
        is_patched: Any = getattr(sys.modules.get(module), question, None)
        patched = [one for one in _MODULES if is_patched is not None and is_patched(one)]
        if patched:
            raise LoadError(
                f"{name} patches Python for {library} ({', '.join(patched)}), whose loop this "
                "server does not run",
                hint=f"remove {library}'s monkey patching: WSGI requests run in real threads here, "
                f"--threads of them; what needs {library} is for gunicorn -k {library}",
            )
