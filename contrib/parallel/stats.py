"""Numbers about the machine, its memory, a server and its contexts, as (name, value) pairs.

``dict(sys_stats())`` and so on give mappings. The names are those of PyParallel, which ran on
Windows; sizes are bytes, addresses are numbers. What each says here:

==============================  ===================================================================
min_address_allocation          the lowest address that may be mapped (vm.mmap_min_addr)
max_address_allocation          the highest address of a process
allocation_granularity          what mapped addresses are multiples of: the page size
cpu_type                        Windows' number of the kind: 8664 for x86-64, 586 for 32-bit x86,
                                0 for any other, as it is there
num_cpus                        CPUs of the machine that are online, ours or not
active_cpu_mask                 a bit for each CPU this process may use, as before any pinning
page_size                       the page size
cpu_level                       the family of an x86 processor, the architecture of an ARM one
cpu_revision                    256 * model + stepping; on ARM 256 * variant + revision
large_page_minimum              size of a huge page, 0 if the kernel has none
large_pages_available           whether huge pages are reserved and free at the moment
registered_io_available         False: registered I/O is Windows' own, sockets are read by epoll
min_filesystem_cache_size       0: the page cache may shrink to nothing
max_filesystem_cache_size       physical memory: the page cache may take all that is free
file_cache_min_hard_enable      False: there is no such limit
file_cache_max_hard_enable      False: there is no such limit
load                            percent of physical memory in use, 0 to 100
total_physical, avail_physical  MemTotal and MemAvailable
total_page_file                 physical memory and swap, which is what Windows means by it
avail_page_file                 what is available of both
total_virtual, avail_virtual    address space of this process (or its limit), and what is unused
seh_eav_in_io_callback          0: structured exceptions are Windows' own
==============================  ===================================================================

A number that this system does not tell is 0.
"""

from __future__ import annotations

import mmap
import os
import re
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parallel.system import seh_eav_in_io_callback

__all__ = [
    "context_stats",
    "cpu_count",
    "memory_stats",
    "refresh_memory_stats",
    "socket_stats",
    "sys_stats",
]

Pairs = list[tuple[str, int]]

# Totals over all contexts, by the names of context_stats(). The runtime sets it.
provider: Callable[[], Mapping[str, int]] | None = None

_SERVER_COUNTERS = (
    "num_children",
    "accepts_posted",
    "retired_clients",
    "fd_accept_count",
    "clients_connected",
    "clients_disconnecting",
    "num_accepts_to_post",
    "total_clients_reused",
    "total_clients_recycled",
    "target_accepts_posted",
    "client_connected_count",
    "total_accepts_attempted",
    "negative_accepts_to_post_count",
    "sem_acquired",
    "sem_released",
    "sem_timeout",
    "sem_count",
    "sem_release_err",
    "num_bytes_just_sent",
    "num_bytes_just_received",
    "total_bytes_sent",
    "total_bytes_received",
    "recvbuf_size",
    "sendbuf_size",
    "send_id",
    "recv_id",
    "ioloops",
    "last_thread_id",
    "this_thread_id",
)
_SINGLE = {
    "active_hogs": 0,
    "active_contexts": 1,
    "active_io_loops": 1,
    "seh_eav_in_io_callback": seh_eav_in_io_callback(),
}
_CPU_TYPES = {"x86_64": 8664, "i386": 586, "i486": 586, "i586": 586, "i686": 586}


def cpu_count(*, root: str = "/") -> int:
    """How many CPUs this process may use: by its affinity (before any pinning), its cgroup's
    cpuset and CPU quota.

    ``root`` stands before every path that is read, here and below.
    """
    from ppserver.machine import topology

    return topology.available(root, bytes_each=0).count


def sys_stats(*, root: str = "/") -> Pairs:
    """The machine; the table above says what each number is."""
    from ppserver.machine import topology

    cpu = _cpuinfo(root)
    memory = _meminfo(root)
    low, high = _addresses(root)
    cpus = [cpu.number for cpu in topology.read(root).cpus]
    return [
        ("min_address_allocation", low),
        ("max_address_allocation", high),
        ("allocation_granularity", mmap.ALLOCATIONGRANULARITY),
        ("cpu_type", _CPU_TYPES.get(os.uname().machine, 0)),
        ("num_cpus", _online(root)),
        ("active_cpu_mask", sum(1 << number for number in cpus)),
        ("page_size", os.sysconf("SC_PAGE_SIZE")),
        ("cpu_level", _first(cpu, "cpu family", "CPU architecture")),
        (
            "cpu_revision",
            (_first(cpu, "model", "CPU variant") << 8) | _first(cpu, "stepping", "CPU revision"),
        ),
        ("large_page_minimum", memory.get("Hugepagesize", 0)),
        ("large_pages_available", memory.get("HugePages_Free", 0) > 0),
        ("registered_io_available", False),
        ("min_filesystem_cache_size", 0),
        ("max_filesystem_cache_size", memory.get("MemTotal", 0)),
        ("file_cache_min_hard_enable", False),
        ("file_cache_max_hard_enable", False),
    ]


def memory_stats(*, root: str = "/") -> Pairs:
    """The machine's memory, which all contexts share, and this process's address space."""
    memory = _meminfo(root)
    total = memory.get("MemTotal", 0)
    available = min(memory.get("MemAvailable", memory.get("MemFree", 0)), total)
    total_virtual, available_virtual = _virtual(root)
    return [
        ("load", round(100 * (total - available) / total) if total else 0),
        ("total_virtual", total_virtual),
        ("avail_virtual", available_virtual),
        ("total_physical", total),
        ("avail_physical", available),
        ("total_page_file", total + memory.get("SwapTotal", 0)),
        ("avail_page_file", available + memory.get("SwapFree", 0)),
    ]


def refresh_memory_stats() -> None:
    """Does nothing: ``memory_stats()`` reads anew each time, it keeps nothing to refresh."""


def context_stats() -> Pairs:
    """What the contexts do, all of them together; without a running server, this process alone."""
    values = {**_SINGLE, **(provider() if provider is not None else {})}
    return [(name, int(values[name])) for name in _SINGLE]


def socket_stats(server: Any) -> Pairs:
    """The counters of ``server``, which is what ``parallel.server()`` returned, or a connection's
    transport. One that it does not have is 0.
    """
    return [(name, int(getattr(server, name, 0) or 0)) for name in _SERVER_COUNTERS]


def _read(root: str, name: str) -> str:
    try:
        return Path(root, name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _meminfo(root: str) -> dict[str, int]:
    """Its lines: bytes, or a count where there is no unit."""
    found = re.findall(r"^([^:\n]+):\s*([0-9]+)( kB)?$", _read(root, "proc/meminfo"), re.MULTILINE)
    return {name: int(number) << (10 if unit else 0) for name, number, unit in found}


def _cpuinfo(root: str) -> dict[str, int]:
    """The numbers of its first processor."""
    first = _read(root, "proc/cpuinfo").strip().partition("\n\n")[0]
    found = re.findall(
        r"^([^:\n]+?)\s*:\s*(0x[0-9a-fA-F]+|[0-9]+)[ \t]*$", first, flags=re.MULTILINE
    )
    return {name: int(text, 16 if text.startswith("0x") else 10) for name, text in found}


def _first(values: Mapping[str, int], *names: str) -> int:
    """The value of the first of ``names`` that is there."""
    return next((values[name] for name in names if name in values), 0)


def _online(root: str) -> int:
    from ppserver.machine import kernel

    online = kernel.parse_list(_read(root, "sys/devices/system/cpu/online"))
    return len(online) if online else os.sysconf("SC_NPROCESSORS_ONLN")


def _addresses(root: str) -> tuple[int, int]:
    """The lowest and the highest address that can be mapped.

    No file tells the highest. The stack lies right below it but for some random gigabytes, so it is
    the next power of two. (On x86 a page at the very end stays free, too.)
    """
    text = _read(root, "proc/sys/vm/mmap_min_addr").strip()
    low = int(text) if text.isdecimal() else 0
    ends = re.findall(
        r"^[0-9a-f]+-([0-9a-f]+) (?!.*\[vsyscall\]$)", _read(root, "proc/self/maps"), re.MULTILINE
    )
    highest = max((int(end, 16) for end in ends), default=0)
    return low, (1 << (highest - 1).bit_length()) - 1 if highest else 0


def _virtual(root: str) -> tuple[int, int]:
    """The address space of this process, and how much of it is unused."""
    low, high = _addresses(root)
    total = high + 1 - low if high else 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        total = min(total, limit)
    match = re.search(r"^VmSize:\s*([0-9]+) kB$", _read(root, "proc/self/status"), re.MULTILINE)
    return total, max(total - (int(match[1]) << 10 if match else 0), 0)
