"""Starts the peers that have no command line able to take the settings of a fair run.

Runs inside the peer's own environment; after the workers comes whether there is a lifespan, on|off:
`python launch.py fastpysgi|bjoern MODULE:ATTR PORT WORKERS on|off`.
"""

import importlib
import os
import sys
from typing import Any


def load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def run_fastpysgi(app: Any, port: int, workers: int, lifespan: bool) -> None:
    # The settings of its author's own entry in the public framework benchmarks: a longer backlog
    # and a quiet log. Everything else is as shipped, but for the lifespan, which is off for every
    # server here unless the application needs it.
    import fastpysgi  # type: ignore[import-not-found, unused-ignore]

    fastpysgi.server.backlog = 4096
    fastpysgi.server.lifespan = 2 if lifespan else 0
    fastpysgi.run(app, "127.0.0.1", port, loglevel=2, workers=workers if workers > 1 else None)


def run_bjoern(app: Any, port: int, workers: int, lifespan: bool) -> None:
    # It has one process; its documentation has more of them share a port.
    import bjoern  # type: ignore[import-not-found, unused-ignore]

    for _ in range(workers - 1):
        if os.fork() == 0:
            break
    bjoern.run(app, "127.0.0.1", port, listen_backlog=4096, reuse_port=workers > 1)


def main() -> None:
    server, target, port, workers, lifespan = sys.argv[1:]
    run = {"fastpysgi": run_fastpysgi, "bjoern": run_bjoern}[server]
    run(load(target), int(port), int(workers), lifespan == "on")


if __name__ == "__main__":
    main()
