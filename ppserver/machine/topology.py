"""The processors this process may use: how many, which ones, and which context gets which.

Read from sysfs, procfs and the cgroup file systems. ``root`` stands before every path, so that
tests can lay out machines and containers as folders. What is missing or malformed is no limit: a
container may hide any of it.

``plan`` is pure and decides; ``pin_current`` does. Memory needs no call of its own: the kernel
places a page on the node of the CPU that touches it first, so a context that is bound before it
allocates has its memory local.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

from ppserver.config import Config
from ppserver.errors import ConfigError
from ppserver.machine.cgroups import cpu_quota, memory_limit, usable
from ppserver.machine.kernel import format_list, parse_list, read_text

logger = logging.getLogger("ppserver.error")

# What a context is allowed for when memory is limited: its own heap beside the shared data, and
# the requests in flight. Contexts that are threads share a heap and are not counted like this.
CONTEXT_BYTES = 64 << 20

_CAPACITY_MAX = 1024

_before_pin: frozenset[int] | None = None  # The affinity this process had before it was narrowed.


class Cpu(NamedTuple):
    """A hardware thread."""

    number: int
    core: int  # The lowest number among the hardware threads of its physical core.
    node: int = 0
    capacity: int = _CAPACITY_MAX  # Of 1024: less for the smaller cores of a mixed processor.


@dataclasses.dataclass(frozen=True, slots=True)
class Topology:
    """The CPUs that may be used, and whether the kernel said which nodes they are on."""

    cpus: tuple[Cpu, ...]
    has_nodes: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Cores:
    """How many contexts ``cores = "all"`` means, and how that came about."""

    count: int
    why: str


# What may be used.


def available(root: str = "/", *, bytes_each: int = CONTEXT_BYTES) -> Cores:
    """The least of affinity within cpuset, CPU quota rounded up, and what memory can hold.

    ``bytes_each`` is what a context is allowed for under a memory limit; 0 leaves memory out.
    """
    affinity = _affinity(root)
    allowed = usable(root, affinity)
    count = len(affinity)
    steps = [f"{count} by affinity"]
    if len(allowed) < count:
        count = len(allowed)
        steps.append(f"{count} by the cgroup's cpuset")
    quota = cpu_quota(root)
    if quota is not None and math.ceil(quota) < count:
        count = max(1, math.ceil(quota))
        steps.append(f"{count} by the cgroup's CPU quota ({quota:g})")
    memory = memory_limit(root)
    if bytes_each and memory is not None and memory // bytes_each < count:
        count = max(1, memory // bytes_each)
        mib = f"{memory >> 20} MiB, {bytes_each >> 20} for a context"
        steps.append(f"{count} by the cgroup's memory limit ({mib})")
    return Cores(count, ", ".join(steps))


def _affinity(root: str) -> frozenset[int]:
    """The CPUs the scheduler may put us on, as they were before anything was pinned."""
    if root == "/":
        return _before_pin or frozenset(os.sched_getaffinity(0))
    status = read_text(Path(root, "proc/self/status")) or ""
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)
    allowed = parse_list(match[1]) if match else None
    online = _online(root)
    if allowed is None:
        return online or frozenset({0})
    # The list in status names CPUs that are not there, too.
    return (allowed & online if online else allowed) or allowed


def _online(root: str) -> frozenset[int] | None:
    return parse_list(read_text(Path(root, "sys/devices/system/cpu/online")))


# Processors.


def read(root: str = "/") -> Topology:
    """The CPUs that may be used, with their cores and nodes."""
    allowed = usable(root, _affinity(root))
    nodes = _nodes(root)
    # Intel's mixed processors list the small cores here; ARM gives a capacity to each.
    small = parse_list(read_text(Path(root, "sys/devices/cpu_atom/cpus"))) or frozenset()
    cpus = []
    for number in sorted(allowed):
        folder = Path(root, f"sys/devices/system/cpu/cpu{number}")
        siblings = parse_list(read_text(folder / "topology/core_cpus_list")) or parse_list(
            read_text(folder / "topology/thread_siblings_list")
        )
        capacity = read_text(folder / "cpu_capacity") or ""
        cpus.append(
            Cpu(
                number,
                core=min(siblings) if siblings and number in siblings else number,
                node=nodes.get(number, 0),
                capacity=int(capacity)
                if re.fullmatch("[0-9]{1,6}", capacity)
                else _CAPACITY_MAX // (2 if number in small else 1),
            )
        )
    return Topology(tuple(cpus), has_nodes=all(number in nodes for number in allowed))


def _nodes(root: str) -> dict[int, int]:
    nodes = {}
    folder = Path(root, "sys/devices/system/node")
    for node in sorted(parse_list(read_text(folder / "online")) or ()):
        for number in parse_list(read_text(folder / f"node{node}/cpulist")) or ():
            nodes[number] = node
    return nodes


def order(topology: Topology) -> list[Cpu]:
    """The CPUs in the order in which contexts take them.

    One hardware thread of every physical core comes before the second of any; among those the
    larger cores come first; among those the nodes take turns.
    """
    ranks: collections.Counter[int] = collections.Counter()
    turns: collections.Counter[tuple[int, int, int]] = collections.Counter()
    keyed = []
    for cpu in sorted(topology.cpus):
        rank = ranks[cpu.core]
        ranks[cpu.core] += 1
        turn = turns[rank, cpu.capacity, cpu.node]
        turns[rank, cpu.capacity, cpu.node] += 1
        keyed.append((rank, -cpu.capacity, turn, cpu.node, cpu))
    return [cpu for *_, cpu in sorted(keyed)]


def plan(topology: Topology, count: int, mode: str) -> list[set[int]]:
    """The CPUs of each of ``count`` contexts: one (``core``) or those of its node (``node``).

    More contexts than CPUs begin again at the first.
    """
    cpus = order(topology)
    chosen = [cpus[slot % len(cpus)] for slot in range(count)]
    if mode == "core":
        return [{cpu.number} for cpu in chosen]
    return [{other.number for other in cpus if other.node == cpu.node} for cpu in chosen]


# Binding.


def pin_current(cpus: set[int]) -> None:
    """Bind the calling thread, and what it starts from now on. OSError if it cannot be."""
    global _before_pin
    if _before_pin is None:
        _before_pin = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus)


def pin(config: Config, slot: int) -> None:
    """Bind the calling thread as ``config.pin`` says for the context in ``slot``.

    To be called in the context's own thread, before it allocates. A CPU may have gone since the
    server was started: that is logged, and the context runs where it may.
    """
    if config.pin == "off":
        return
    cpus = plan(read(), slot + 1, config.pin)[slot]
    try:
        pin_current(cpus)
    except OSError as error:
        logger.warning(
            "Context %d cannot be bound to CPU %s: %s", slot + 1, format_list(cpus), error.strerror
        )
    else:
        logger.debug("Context %d is bound to CPU %s", slot + 1, format_list(cpus))


def check(config: Config, root: str = "/") -> None:
    """ConfigError if this machine, or this container, cannot do what ``config.pin`` asks for."""
    if config.pin == "off":
        return
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError as error:
        raise ConfigError(
            f"threads cannot be bound to CPUs here: {error.strerror}",
            hint="a container's seccomp profile may forbid sched_setaffinity; --pin off",
            setting="pin",
        ) from None
    if config.pin == "node" and not read(root).has_nodes:
        raise ConfigError(
            "this machine does not say which NUMA nodes it has", hint="--pin core", setting="pin"
        )


def explain(config: Config, count: int, root: str = "/") -> list[tuple[int, str]]:
    """What to log, each with its level, about where ``count`` contexts are bound."""
    if config.pin == "off":
        return []
    topology = read(root)
    cpus = format_list(set[int]().union(*plan(topology, count, config.pin)))
    lines = [(logging.INFO, f"pin: each context to a {config.pin}, CPUs {cpus} in all")]
    if config.pin == "node" and len({cpu.node for cpu in topology.cpus}) == 1:
        lines.append((logging.WARNING, "pin: there is one NUMA node: all contexts may use it all"))
    if config.pin == "core" and count > len(topology.cpus):
        text = (
            f"pin: {count} contexts on {len(topology.cpus)} CPUs: some are bound to the same one "
            "and cannot move apart"
        )
        lines.append((logging.WARNING, text))
    return lines
