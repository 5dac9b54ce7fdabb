"""Control groups: what this process and those around it may have, of either version of them.

``root`` stands before every path, so that tests can lay out containers as folders. What is missing
or malformed is no limit: a container may hide any of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ppserver.machine.kernel import parse_list, read_text


def cpu_quota(root: str = "/") -> float | None:
    """The least CPU quota of this process's cgroups and those above, in cores; None if none."""
    quotas = [_quota_of(directory) for directory in _groups(root, "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: str = "/") -> int | None:
    """The least memory limit, hard or soft, of those cgroups, in bytes; None if none."""
    limits = []
    for directory in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = read_text(directory / name)
            # "max", or by version 1 nearly 2**63, is no limit.
            if text is not None and text.isdecimal() and 0 < int(text) < 1 << 62:
                limits.append(int(text))
    return min(limits, default=None)


def _quota_of(directory: Path) -> float | None:
    text = read_text(directory / "cpu.max")
    if text is None:
        quota_text = read_text(directory / "cpu.cfs_quota_us")
        period_text = read_text(directory / "cpu.cfs_period_us")
        text = f"{quota_text} {period_text}"
    match = re.fullmatch(r"([0-9]+) ([0-9]+)", text)  # Else "max", -1, or no such file.
    if match is None or int(match[1]) == 0 or int(match[2]) == 0:
        return None
    return int(match[1]) / int(match[2])


def usable(root: str, affinity: frozenset[int]) -> frozenset[int]:
    """``affinity`` within the cpuset of the nearest cgroup that has one."""
    for directory in _groups(root, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            cpuset = parse_list(read_text(directory / name))
            if cpuset is not None:
                return affinity & cpuset or affinity
    return affinity


def _groups(root: str, controller: str) -> Iterator[Path]:
    """The directories of this process's cgroup and those above it, nearest first.

    With both versions mounted a controller is in one of them only, so both are looked at.
    """
    for line in (read_text(Path(root, "proc/self/cgroup")) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/") or (controllers and controller not in controllers.split(",")):
            continue
        for base, inside in _mounts(root, controllers, controller):
            group = base / _below(path, inside)
            for directory in (group, *group.parents):
                yield directory
                if directory == base:
                    break


def _below(path: str, inside: str) -> str:
    """Where under a mount of cgroup ``inside`` the cgroup ``path`` is, "" for the mount itself.

    A container may be given the name its group has on the host, beside a mount that shows only
    that group or what is below it: then what can be seen is what counts.
    """
    parts, top = [[p for p in text.split("/") if p] for text in (path, inside)]
    if ".." in parts or parts[: len(top)] != top:
        return ""
    return "/".join(parts[len(top) :])


def _mounts(root: str, controllers: str, controller: str) -> Iterator[tuple[Path, str]]:
    """(mount point, the cgroup that is its root) of the hierarchy of a line of proc/self/cgroup."""
    found = False
    for line in (read_text(Path(root, "proc/self/mountinfo")) or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] != ("cgroup" if controllers else "cgroup2"):
            continue
        if not controllers or controller in kind[2].split(","):
            found = True
            yield Path(root, _unescape(fields[4]).lstrip("/")), _unescape(fields[3])
    if not found:  # No mountinfo: the usual places.
        for name in (controllers, controller) if controllers else ("", "unified"):
            base = Path(root, "sys/fs/cgroup", name)
            if base.is_dir():
                yield base, "/"


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
