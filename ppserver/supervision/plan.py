"""What a configuration comes to: how many contexts, where they live, who supervises them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Container

from ppserver._version import __version__
from ppserver.app import lifespan
from ppserver.app.loader import Application
from ppserver.config import Config
from ppserver.machine import gil, terminal, topology

logger = logging.getLogger("ppserver.error")


def is_supervised(config: Config, given: Container[str] | None = None) -> tuple[bool, str]:
    """Whether contexts run under a supervisor, and why or why not; ``given`` as of `run`."""
    if config.contexts != "auto" or context_count(config) > 1:
        return True, "several contexts"
    if config.supervise != "auto":
        return config.supervise == "always", "by --supervise"
    if not isinstance(config.app, str) or threading.current_thread() is not threading.main_thread():
        return False, "the program's own"  # It could not be loaded anew; or not be supervised.
    for name in ("limit_max_requests", "user", "group"):
        if getattr(config, name):
            return True, f"by --{name.replace('_', '-')}"
    if os.getpid() == 1:
        return True, "process 1 of a container"
    if given is None:
        return False, "the program's own"
    if "cores" in given:
        return True, "by --cores"
    return not terminal.is_there(), "at a terminal" if terminal.is_there() else "no terminal"


def place_for(config: Config, application: Application, culprit: str) -> tuple[str, str]:
    """Where the contexts of a loaded application go, and why.

    ``culprit`` is the module whose import switched the GIL of a free-threaded Python on, or "".
    """
    if config.contexts != "auto":
        return config.contexts, "by --contexts"
    if not gil.FREE_THREADED:
        return "processes", "this Python has a GIL"
    if gil.enabled():
        if culprit:
            return (
                "processes",
                f"importing {culprit} switched the GIL on; --gil off would keep it off",
            )
        return "processes", "the GIL is switched on"
    if application.interface == "wsgi":
        return "threads", "free-threaded Python, a WSGI application"
    if application.interface == "parallel":
        return "threads", "free-threaded Python, protocols of the parallel API"
    if application.make is not None:
        return "threads", "free-threaded Python, an application per context"
    if config.lifespan == "off" or not lifespan.takes_part(application.call):
        return "threads", "free-threaded Python, an application without lifespan"
    return (
        "processes",
        "one application object with lifespan can not run on several event loops; "
        "give a factory to get threads",
    )


def context_count(config: Config) -> int:
    """How many contexts ``config`` asks for."""
    return config.cores if isinstance(config.cores, int) else available(config).count


def available(config: Config) -> topology.Cores:
    """The contexts that ``cores = "all"`` stands for."""
    # Threads share one heap: a memory limit is no reason for fewer of them.
    shared = config.contexts == "threads"
    return topology.available(bytes_each=0 if shared else topology.CONTEXT_BYTES)


def banner(config: Config, place: str, interface: str, loop: str, why: str = "") -> None:
    """What is about to run, and why so."""
    found = available(config)
    count, cores = context_count(config), found.count
    logger.info(
        "ppserver %s: %s, %s, %d core%s available",
        __version__,
        {"parallel": "parallel API"}.get(interface, interface.upper()),
        f"loop {loop}" if interface == "asgi" else f"{config.threads} threads each",
        cores,
        "" if cores == 1 else "s",
    )
    where = f"{count} \N{MULTIPLICATION SIGN} {place}" if place else "1, in this process"
    logger.info("contexts: %s%s", where, f" ({why})" if why else "")
    if config.cores == "all":
        logger.info("cores: %s", found.why)
    for level, line in topology.explain(config, count):
        logger.log(level, "%s", line)
