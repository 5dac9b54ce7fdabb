"""The statistics: the names of PyParallel, on this machine and on simulated ones."""

from __future__ import annotations

import os
import pathlib
import resource
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from parallel import stats
from parallel.registry import ServerTransport

SYSTEM = [
    "min_address_allocation",
    "max_address_allocation",
    "allocation_granularity",
    "cpu_type",
    "num_cpus",
    "active_cpu_mask",
    "page_size",
    "cpu_level",
    "cpu_revision",
    "large_page_minimum",
    "large_pages_available",
    "registered_io_available",
    "min_filesystem_cache_size",
    "max_filesystem_cache_size",
    "file_cache_min_hard_enable",
    "file_cache_max_hard_enable",
]
MEMORY = [
    "load",
    "total_virtual",
    "avail_virtual",
    "total_physical",
    "avail_physical",
    "total_page_file",
    "avail_page_file",
]
CONTEXT = ["active_hogs", "active_contexts", "active_io_loops", "seh_eav_in_io_callback"]
KIB = 1024

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Write:
    """Lays a file out under ``tmp_path``, as the root of a machine."""

    def write_file(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write_file


def test_names() -> None:
    assert [name for name, _ in stats.sys_stats()] == SYSTEM
    assert [name for name, _ in stats.memory_stats()] == MEMORY
    assert [name for name, _ in stats.context_stats()] == CONTEXT


def test_this_machine() -> None:
    found = dict(stats.sys_stats())
    assert found["page_size"] == found["allocation_granularity"] == os.sysconf("SC_PAGE_SIZE")
    assert found["num_cpus"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert 1 <= found["active_cpu_mask"].bit_count() <= found["num_cpus"]
    assert 1 <= stats.cpu_count() <= found["active_cpu_mask"].bit_count()
    # Every object of this process lies between.
    assert found["min_address_allocation"] < id(found) < found["max_address_allocation"]
    assert found["registered_io_available"] is False
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["max_filesystem_cache_size"] == dict(stats.memory_stats())["total_physical"]
    assert found["max_filesystem_cache_size"] == physical


def test_memory_of_this_machine() -> None:
    stats.refresh_memory_stats()
    found = dict(stats.memory_stats())
    assert 0 <= found["load"] <= 100
    assert 0 < found["avail_physical"] <= found["total_physical"] <= found["total_page_file"]
    assert found["avail_physical"] <= found["avail_page_file"] <= found["total_page_file"]
    assert 0 < found["avail_virtual"] < found["total_virtual"]


def test_simulated_memory(
    tmp_path: pathlib.Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (-1, -1))
    write(
        "proc/meminfo",
        "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  250 kB\n"
        "SwapTotal:  500 kB\nSwapFree:  400 kB\n",
    )
    write("proc/self/status", "Name:\tx\nVmSize:\t      64 kB\n")
    write("proc/sys/vm/mmap_min_addr", "65536\n")
    write(
        "proc/self/maps",
        "00400000-00500000 r-xp 00000000 08:01 1    /bin/x\n"
        "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0    [stack]\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]\n",
    )
    found = dict(stats.memory_stats(root=str(tmp_path)))
    total = (1 << 47) - 65536
    assert found == {
        "load": 75,
        "total_virtual": total,
        "avail_virtual": total - 64 * KIB,
        "total_physical": 1000 * KIB,
        "avail_physical": 250 * KIB,
        "total_page_file": 1500 * KIB,
        "avail_page_file": 650 * KIB,
    }
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65 * KIB, -1))
    found = dict(stats.memory_stats(root=str(tmp_path)))
    assert (found["total_virtual"], found["avail_virtual"]) == (65 * KIB, KIB)


@pytest.mark.parametrize(
    ("cpuinfo", "level", "revision"),
    [
        (
            "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Fast 3\n"
            "stepping\t: 7\n\nprocessor\t: 1\ncpu family\t: 7\nmodel\t: 1\nstepping\t: 1\n",
            6,
            85 * 256 + 7,
        ),
        (
            "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n"
            "CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n",
            8,
            3 * 256 + 1,
        ),
    ],
    ids=["x86", "arm"],
)
def test_simulated_processors(
    tmp_path: pathlib.Path, write: Write, cpuinfo: str, level: int, revision: int
) -> None:
    write("proc/cpuinfo", cpuinfo)
    write("proc/meminfo", "MemTotal: 8 kB\nHugePages_Free:   2\nHugepagesize:  2048 kB\n")
    write("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0,2\n")
    write("sys/devices/system/cpu/online", "0-3\n")
    found = dict(stats.sys_stats(root=str(tmp_path)))
    assert (found["cpu_level"], found["cpu_revision"]) == (level, revision)
    assert (found["num_cpus"], found["active_cpu_mask"]) == (4, 0b101)
    assert found["large_page_minimum"] == 2048 * KIB
    assert found["large_pages_available"] is True
    assert found["max_filesystem_cache_size"] == 8 * KIB
    assert stats.cpu_count(root=str(tmp_path)) == 2


def test_a_system_that_tells_nothing(tmp_path: pathlib.Path) -> None:
    found = dict(stats.memory_stats(root=str(tmp_path)))
    assert set(found.values()) == {0}
    found = dict(stats.sys_stats(root=str(tmp_path)))
    assert found["num_cpus"] >= 1
    assert found["cpu_level"] == found["max_address_allocation"] == 0


def test_contexts_of_a_single_process() -> None:
    assert dict(stats.context_stats()) == {
        "active_hogs": 0,
        "active_contexts": 1,
        "active_io_loops": 1,
        "seh_eav_in_io_callback": 0,
    }


def test_contexts_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = {"active_contexts": 4, "active_io_loops": 3, "active_hogs": 1, "other": 9}
    monkeypatch.setattr(stats, "provider", lambda: totals)
    assert dict(stats.context_stats()) == {
        "active_hogs": 1,
        "active_contexts": 4,
        "active_io_loops": 3,
        "seh_eav_in_io_callback": 0,
    }


def test_counters_of_a_server() -> None:
    fresh = dict(stats.socket_stats(ServerTransport()))
    assert "total_bytes_sent" in fresh
    assert len(fresh) == 29
    own = {"recvbuf_size", "sendbuf_size", "last_thread_id", "this_thread_id"}
    assert {name for name, value in fresh.items() if value} == own
    server: Any = SimpleNamespace(clients_connected=3, total_bytes_sent=1 << 40, sem_count=None)
    found = dict(stats.socket_stats(server))
    assert found["clients_connected"] == 3
    assert found["total_bytes_sent"] == 1 << 40
    assert found["sem_count"] == found["retired_clients"] == 0
