"""Where contexts live: choose a back end, and what every back end needs.

A back end is a function ``run(config) -> exit code``. ``inline`` is one context in this process;
``processes`` is a supervisor over a loader over forked contexts. Threads and interpreters join
the same table when they come.
"""

from __future__ import annotations

import contextlib
import grp
import importlib
import importlib.util
import logging
import math
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

from ppserver.config import Config
from ppserver.errors import ConfigError, StartupError

logger = logging.getLogger("ppserver.error")

_BACKENDS = {
    "inline": "ppserver.contexts.inline",
    "processes": "ppserver.supervisor",
}


def run(config: Config) -> int:
    """Serve until told to stop, with as many contexts as ``config`` says; the exit code.

    Must be called in the main thread. Raises PPServerError if the server cannot start.
    """
    if config.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        raise ConfigError(
            "loop: uvloop is not installed", hint="pip install uvloop, or --loop asyncio"
        )
    backend = importlib.import_module(_BACKENDS[choose(config)])
    serve: Callable[[Config], int] = backend.run
    return serve(config)


def choose(config: Config) -> str:
    """The name of the back end for ``config``."""
    if config.contexts != "auto":
        return config.contexts
    return "inline" if context_count(config) == 1 else "processes"


def context_count(config: Config) -> int:
    """How many contexts ``config`` asks for."""
    return config.cores if isinstance(config.cores, int) else available_cores()


def available_cores(root: str = "/") -> int:
    """Cores this process may use: its affinity, and its cgroups' quota rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: str = "/") -> float | None:
    """The least CPU quota of this process's cgroups and those above, in cores; None if none."""
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = Path(root, "sys/fs/cgroup", "cpu" if controllers else "")
        group = base / path.lstrip("/")
        for directory in (group, *group.parents):
            quotas.append(_quota_of(directory))
            if directory == base:
                break
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(directory: Path) -> float | None:
    try:
        if (file := directory / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota = (directory / "cpu.cfs_quota_us").read_text()
            period = (directory / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max", or no such file: no limit here.


def banner(config: Config, place: str, interface: str) -> None:
    """One line on what is about to run."""
    from ppserver import __version__

    count, cores = context_count(config), available_cores()
    loop = "asyncio" if config.loop == "auto" else config.loop
    logger.info(
        "ppserver %s: %s, %d context%s (%s), %s, %d core%s available",
        __version__,
        interface.upper(),
        count,
        "" if count == 1 else "s",
        place,
        f"loop {loop}" if interface == "asgi" else f"{config.threads} threads each",
        cores,
        "" if cores == 1 else "s",
    )


def set_umask(config: Config) -> None:
    if config.umask is not None:
        os.umask(config.umask)


@contextlib.contextmanager
def pid_file(config: Config) -> Iterator[None]:
    """Write ``config.pid`` and remove it at the end. StartupError if it cannot be written."""
    if config.pid is None:
        yield
        return
    path, text = os.path.abspath(config.pid), f"{os.getpid()}\n"
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise StartupError(f"cannot write pid file {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if Path(path).read_text() == text:
                os.unlink(path)


def identity(config: Config) -> tuple[int | None, int | None]:
    """(user, group) to become, None for no change. ConfigError if there is no such one."""
    uid = gid = None
    if config.user is not None:
        try:
            entry = pwd.getpwnam(config.user)
            uid, gid = entry.pw_uid, entry.pw_gid
        except KeyError:
            if not config.user.isdecimal():
                raise ConfigError(f"user: there is no user {config.user!r}") from None
            uid = int(config.user)
    if config.group is not None:
        try:
            gid = grp.getgrnam(config.group).gr_gid
        except KeyError:
            if not config.group.isdecimal():
                raise ConfigError(f"group: there is no group {config.group!r}") from None
            gid = int(config.group)
    return uid, gid


def drop_privileges(config: Config) -> None:
    """Become ``config.user`` and ``config.group``. StartupError if that is not permitted."""
    uid, gid = identity(config)
    try:
        if gid is not None and gid != os.getegid():
            os.setgid(gid)
        if uid is not None and uid != os.geteuid():
            name = _name_of(uid)
            if name is not None and gid is not None:
                os.initgroups(name, gid)
            else:
                os.setgroups([] if gid is None else [gid])
            os.setuid(uid)
    except PermissionError:
        raise StartupError(
            f"cannot become user {config.user or os.geteuid()}, group {config.group or '-'}: "
            "not permitted",
            hint="only root can; start it as that user instead",
        ) from None


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
