"""Becoming another user, with nothing left of the first one's."""

from __future__ import annotations

import grp
import os
import pwd

from ppserver.config import Config
from ppserver.errors import ConfigError, StartupError


def identity(config: Config) -> tuple[int | None, int | None]:
    """(user, group) to become, None for no change. ConfigError if there is no such one.

    The group is the user's own; of a number without an account, the group of that number.
    """
    uid = gid = None
    if config.user is not None:
        try:
            entry = pwd.getpwnam(config.user)
            uid, gid = entry.pw_uid, entry.pw_gid
        except KeyError:
            if not config.user.isdecimal():
                raise ConfigError(f"there is no user {config.user!r}", setting="user") from None
            uid = gid = int(config.user)
            if (account := _account(uid)) is not None:
                gid = account.pw_gid
    if config.group is not None:
        try:
            gid = grp.getgrnam(config.group).gr_gid
        except KeyError:
            if not config.group.isdecimal():
                raise ConfigError(f"there is no group {config.group!r}", setting="group") from None
            gid = int(config.group)
    return uid, gid


def drop(config: Config) -> None:
    """Become ``config.user`` and ``config.group``. StartupError if that is not permitted.

    Where ``HOME``, ``USER`` and ``LOGNAME`` are those of who started the server, they change, too.
    """
    uid, gid = identity(config)
    before = os.geteuid()
    try:
        if gid is not None and gid != os.getegid():
            os.setgid(gid)
        if uid is not None and uid != before:
            account = _account(uid)
            if account is not None and gid is not None:
                os.initgroups(account.pw_name, gid)
            else:
                os.setgroups([] if gid is None else [gid])
            os.setuid(uid)
            _change_environment(_account(before), account)
    except PermissionError:
        raise StartupError(
            f"cannot become user {config.user or before}, group {config.group or '-'}: "
            "not permitted",
            hint="only root can; start it as that user instead",
        ) from None


def set_umask(config: Config) -> None:
    """Have files that this process makes get the modes that ``config.umask`` leaves."""
    if config.umask is not None:
        os.umask(config.umask)


def _change_environment(old: pwd.struct_passwd | None, new: pwd.struct_passwd | None) -> None:
    if os.environ.get("HOME") in (None, old.pw_dir if old else None):
        os.environ["HOME"] = new.pw_dir if new else "/"
    for name in ("USER", "LOGNAME"):
        if old is not None and os.environ.get(name) == old.pw_name:
            if new is None:
                del os.environ[name]
            else:
                os.environ[name] = new.pw_name


def _account(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
