"""Starts the peers that have no command line able to take the settings of a fair run.

Runs inside the peer's own environment: `python launch.py fastpysgi|bjoern MODULE:ATTR PORT`.
"""

import importlib
import sys
from typing import Any


def load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def run_fastpysgi(app: Any, port: int) -> None:
    # The settings of its author's own entry in the public framework benchmarks: a longer backlog
    # and a quiet log. Everything else is as shipped, but for the lifespan, which is off for every
    # server here.
    import fastpysgi  # type: ignore[import-not-found, unused-ignore]

    fastpysgi.server.backlog = 4096
    fastpysgi.server.lifespan = 0
    fastpysgi.run(app, "127.0.0.1", port, loglevel=2)


def run_bjoern(app: Any, port: int) -> None:
    import bjoern  # type: ignore[import-not-found, unused-ignore]

    bjoern.run(app, "127.0.0.1", port, listen_backlog=4096)


def main() -> None:
    server, target, port = sys.argv[1:]
    {"fastpysgi": run_fastpysgi, "bjoern": run_bjoern}[server](load(target), int(port))


if __name__ == "__main__":
    main()
