"""How many contexts there are, where they live, and what happens around them."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import ClassVar

from ppserver.config.table import Group, choice, number, setting
from ppserver.config.targets import parse_function
from ppserver.errors import ConfigError

HOOKS = ("on_start", "on_context_start", "on_context_stop", "on_stop")


def _cores(text: str) -> object:
    if text == "all":
        return text
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise ValueError("is neither 'all' nor a number")
    return int(text)


def _function(help: str) -> str | None:  # noqa: A002
    return setting(None, help, "MODULE:FUNCTION")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextSettings(Group):
    TITLE: ClassVar[str] = "Contexts"

    cores: int | str = setting(
        1,
        "how many contexts to run, one a core (a context: one worker of the server, with "
        "its own event loop); all: as many as this process's affinity and its cgroup's cpuset, "
        "CPU quota and memory limit allow",
        "all|N",
        minimum=1,
        maximum=1024,
        flags=("-w",),
        parse=_cores,
        aliases=("workers",),
    )
    contexts: str = choice(
        "auto|processes|threads|interpreters",
        "where contexts live; auto: threads on a free-threaded Python where the "
        "application allows it, else forked processes (for one context see --supervise); "
        "interpreters (experimental, 3.13+) is never chosen by itself",
    )
    supervise: str = choice(
        "auto|always|never",
        "whether one context runs under a supervisor, which replaces it and reloads; "
        "auto: the command does so unless it is started at a terminal without --cores and "
        "nothing else needs it; several contexts always have one",
    )
    balance: str = choice(
        "load|kernel",
        "who gets a new connection: load, the least loaded context; kernel, whomever the "
        "kernel's hash of its address picks (SO_REUSEPORT)",
    )
    gil: str = choice(
        "auto|off|on",
        "on a free-threaded Python: off starts it with PYTHON_GIL=0, whatever modules "
        "are imported; on with PYTHON_GIL=1; auto leaves it as it is",
    )
    load: str = choice(
        "auto|once|each",
        "once imports the application in one process that all others are forked from; "
        "each imports it in every context; auto is once, or each if the import opened "
        "connections or database files or started threads, which must not be shared",
    )
    on_start: str | None = _function(
        "call this function after the application is imported and before contexts start, "
        "once (with --load each, in each context): the place to load data that all contexts "
        "read"
    )
    on_context_start: str | None = _function(
        "call this function in each context before it serves: the place to open connections "
        "and start threads; it may be async for ASGI"
    )
    on_context_stop: str | None = _function(
        "call this function in each context after its last request; may be async too"
    )
    on_stop: str | None = _function(
        "call this function after all contexts have ended, once (with --load each, at the end "
        "of each context)"
    )
    freeze: bool = setting(
        True,
        "make what is loaded before contexts start immortal (Python 3.12+), so that "
        "several contexts read it without writing reference counts",
    )
    loop: str = choice(
        "auto|asyncio|uvloop",
        "event loop for ASGI; auto is uvloop where it is installed and usable, else "
        "asyncio on the server's own selector",
    )
    task: str = choice(
        "worker|eager|plain",
        "how an ASGI request gets its task: a reused worker task, an eager task "
        "(3.12+), or a plain new one",
    )
    threads: int = number(32, 1, 1024, "threads of a context that may run WSGI requests at a time")
    pin: str = choice(
        "off|core|node",
        "bind each context to a CPU of its own, one on every physical core first, or to "
        "the CPUs of one NUMA node",
    )

    def check_together(self) -> None:
        if self.task == "eager" and sys.version_info < (3, 12):
            raise ConfigError(
                "eager tasks need Python 3.12", setting="task", hint="--task worker is faster"
            )
        if self.contexts == "interpreters":
            self._check_interpreters()
        if self.supervise == "never" and (self.contexts != "auto" or self.cores != 1):
            raise ConfigError(
                "'never' is for one context in this very process",
                setting="supervise",
                hint="leave --cores and --contexts out, or let it be supervised",
            )
        if self.load == "each" and self.contexts == "threads":
            raise ConfigError(
                "'each' is not for threads, which have one import system",
                setting="load",
                hint="--contexts processes, or a factory: every thread then has an application",
            )
        for name in HOOKS:
            if (target := getattr(self, name)) is not None:
                parse_function(target, name)

    def _check_interpreters(self) -> None:
        """What interpreters with a GIL of their own cannot do."""
        version = sys.version_info[:2]
        if version < (3, 13):
            why = (
                "in 3.12 asyncio corrupts memory when several interpreters run at once"
                if version == (3, 12)
                else "before 3.12 all interpreters of a process share one GIL"
            )
            raise ConfigError(
                f"'interpreters' needs Python 3.13: {why}",
                setting="contexts",
                hint="--contexts processes runs one context per core",
            )
        if self.loop == "uvloop":
            raise ConfigError(
                "uvloop cannot be loaded in interpreters with a GIL of their own",
                setting="loop",
                hint="--loop asyncio, or --contexts processes",
            )
