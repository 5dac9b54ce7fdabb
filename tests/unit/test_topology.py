"""Simulated machines and containers: how many contexts they get, and on which CPUs."""

from __future__ import annotations

import logging
import os
import pathlib
import threading
from collections.abc import Callable, Iterator

import pytest

from ppserver.config import Config
from ppserver.errors import ConfigError
from ppserver.machine import cgroups, kernel, topology
from ppserver.machine.topology import Cores, Cpu, Topology

MIB = 1 << 20


class Machine:
    """A folder laid out like the root of a machine."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def write(self, name: str, text: str) -> Machine:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def cpus(
        self,
        present: str,
        *,
        allowed: str = "",
        siblings: Callable[[int], str] | None = None,
        old_names: bool = False,
    ) -> Machine:
        self.write("sys/devices/system/cpu/online", present + "\n")
        self.write(
            "proc/self/status",
            f"Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed or present}\n",
        )
        name = "thread_siblings_list" if old_names else "core_cpus_list"
        for number in kernel.parse_list(present) or ():
            if siblings is not None:
                folder = f"sys/devices/system/cpu/cpu{number}/topology"
                self.write(f"{folder}/{name}", siblings(number) + "\n")
        return self

    def nodes(self, *lists: str) -> Machine:
        self.write("sys/devices/system/node/online", f"0-{len(lists) - 1}\n")
        for number, text in enumerate(lists):
            self.write(f"sys/devices/system/node/node{number}/cpulist", text + "\n")
        return self

    def groups(self, lines: str, files: dict[str, str], mounts: str = "") -> Machine:
        self.write("proc/self/cgroup", lines)
        if mounts:
            self.write("proc/self/mountinfo", mounts)
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{name}", text + "\n")
        return self


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(autouse=True)
def _unpinned() -> Iterator[None]:
    """Leaves the thread that runs the tests as it was."""
    before, known = os.sched_getaffinity(0), topology._before_pin
    yield
    os.sched_setaffinity(0, before)
    topology._before_pin = known


def server(machine: Machine, *, allowed: str = "", old_names: bool = False) -> Machine:
    """2 sockets of 8 cores of 2 threads: CPUs n and n + 16 are a core."""

    def siblings(number: int) -> str:
        return f"{number % 16},{number % 16 + 16}"

    machine.cpus("0-31", siblings=siblings, allowed=allowed, old_names=old_names)
    return machine.nodes("0-7,16-23", "8-15,24-31")


V2 = "0::/\n"
V2_MOUNT = "30 20 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "4:memory:/c\n3:cpuset:/c\n2:cpu,cpuacct:/c\n1:name=systemd:/c\n"


# How many.


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        (V2, {}, None),
        (V2, {"cpu.max": "max 100000"}, None),
        (V2, {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        ("0::/a/b\n", {"a/cpu.max": "250000 100000", "a/b/cpu.max": "400000 100000"}, 2.5),
        (V1, {"cpu/c/cpu.cfs_quota_us": "300000", "cpu/c/cpu.cfs_period_us": "100000"}, 3.0),
        (V1, {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"}, None),
        (
            V1,
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/cpu.cfs_period_us": "25000",
                "cpu,cpuacct/c/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/c/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        # Malformed, cut short, or half there: no limit.
        (V2, {"cpu.max": ""}, None),
        (V2, {"cpu.max": "150000"}, None),
        (V2, {"cpu.max": "150000 0"}, None),
        (V2, {"cpu.max": "0 100000"}, None),
        (V2, {"cpu.max": "much 100000"}, None),
        (V1, {"cpu/c/cpu.cfs_quota_us": "300000"}, None),
        ("", {"cpu.max": "150000 100000"}, None),
        ("garbage\n0:\n::\n0::not/absolute\n", {"cpu.max": "150000 100000"}, None),
    ],
)
def test_quota(machine: Machine, lines: str, files: dict[str, str], quota: float | None) -> None:
    machine.groups(lines, files)
    assert cgroups.cpu_quota(str(machine)) == quota


@pytest.mark.parametrize(
    ("lines", "mounts", "files"),
    [
        pytest.param("0::/\n", V2_MOUNT, {"cpu.max": "200000 100000"}, id="own namespace"),
        pytest.param(
            "0::/docker/abc\n", V2_MOUNT, {"cpu.max": "200000 100000"}, id="host's name, own mount"
        ),
        pytest.param(
            "0::/docker/abc/job\n",
            V2_MOUNT.replace(" / ", " /docker/abc ", 1),
            {"job/cpu.max": "200000 100000"},
            id="mount of the group, process below it",
        ),
        pytest.param(
            "0::/docker/other\n",
            V2_MOUNT.replace(" / ", " /docker/abc ", 1),
            {"cpu.max": "200000 100000", "docker/other/cpu.max": "100000 100000"},
            id="mount of another group",
        ),
        pytest.param(
            "0::/../../outside\n", V2_MOUNT, {"cpu.max": "200000 100000"}, id="above the namespace"
        ),
        pytest.param(
            "2:cpu,cpuacct:/docker/abc\n",
            "33 31 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            id="version 1, host's name",
        ),
        pytest.param(
            "1:cpu:/\n0::/\n",
            "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            id="hybrid, cpu in version 1",
        ),
        pytest.param(
            "1:memory:/\n0::/x\n",
            "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\nshort line - x\n",
            {"uni fied/x/cpu.max": "200000 100000"},
            id="hybrid, cpu in version 2, a blank in the path",
        ),
        pytest.param(
            "0::/x\n", "", {"unified/x/cpu.max": "200000 100000"}, id="hybrid without mountinfo"
        ),
    ],
)
def test_where_the_group_is(
    machine: Machine, lines: str, mounts: str, files: dict[str, str]
) -> None:
    machine.groups(lines, files, mounts)
    assert cgroups.cpu_quota(str(machine)) == 2.0


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        (V2, {"memory.max": "max"}, None),
        (V2, {"memory.max": "max", "memory.high": "1000000"}, 1000000),
        (V2, {"memory.max": "500000", "memory.high": "1000000"}, 500000),
        ("0::/a/b\n", {"a/memory.max": "300000", "a/b/memory.max": "max"}, 300000),
        (V1, {"memory/c/memory.limit_in_bytes": "9223372036854771712"}, None),
        (V1, {"memory/c/memory.limit_in_bytes": "400000"}, 400000),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": "300000",
                "memory/c/memory.limit_in_bytes": "9223372036854771712",
            },
            300000,
        ),
        (V2, {"memory.max": "-5"}, None),
        (V2, {"memory.max": "1e9"}, None),
    ],
)
def test_memory_limit(
    machine: Machine, lines: str, files: dict[str, str], limit: int | None
) -> None:
    machine.groups(lines, files)
    assert cgroups.memory_limit(str(machine)) == limit


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        (V2, {}, Cores(32, "32 by affinity")),
        (
            V2,
            {"cpu.max": "150000 100000"},
            Cores(2, "32 by affinity, 2 by the cgroup's CPU quota (1.5)"),
        ),
        (V2, {"cpu.max": "9900000 100000"}, Cores(32, "32 by affinity")),
        (
            V2,
            {"cpu.max": "1000 100000"},
            Cores(1, "32 by affinity, 1 by the cgroup's CPU quota (0.01)"),
        ),
        (
            V2,
            {"cpuset.cpus.effective": "0-3,40", "cpu.max": "max 100000"},
            Cores(4, "32 by affinity, 4 by the cgroup's cpuset"),
        ),
        (
            V1,
            {"cpuset/c/cpuset.effective_cpus": "0-7", "cpuset/c/cpuset.cpus": ""},
            Cores(8, "32 by affinity, 8 by the cgroup's cpuset"),
        ),
        (V1, {"cpuset/c/cpuset.cpus": "2"}, Cores(1, "32 by affinity, 1 by the cgroup's cpuset")),
        # A cpuset of nothing, or of CPUs that we are not on, tells nothing.
        (V2, {"cpuset.cpus.effective": ""}, Cores(32, "32 by affinity")),
        (V2, {"cpuset.cpus.effective": "3-x"}, Cores(32, "32 by affinity")),
        (V2, {"cpuset.cpus.effective": "40-44"}, Cores(32, "32 by affinity")),
        (
            V2,
            {"memory.max": str(300 * MIB)},
            Cores(
                4,
                "32 by affinity, 4 by the cgroup's memory limit (300 MiB, 64 for a context)",
            ),
        ),
        (
            V2,
            {"memory.max": str(10 * MIB), "cpu.max": "300000 100000"},
            Cores(
                1,
                "32 by affinity, 3 by the cgroup's CPU quota (3), "
                "1 by the cgroup's memory limit (10 MiB, 64 for a context)",
            ),
        ),
        (
            V2,
            {"memory.max": str(4096 * MIB), "cpu.max": "300000 100000"},
            Cores(3, "32 by affinity, 3 by the cgroup's CPU quota (3)"),
        ),
    ],
)
def test_available(machine: Machine, lines: str, files: dict[str, str], cores: Cores) -> None:
    server(machine).groups(lines, files)
    assert topology.available(str(machine)) == cores


def test_available_within_affinity(machine: Machine) -> None:
    server(machine, allowed="4-7,200-300").groups(V2, {"cpuset.cpus.effective": "6-9"})
    assert topology.available(str(machine)).why == "4 by affinity, 2 by the cgroup's cpuset"


def test_memory_is_no_limit_for_threads(machine: Machine) -> None:
    server(machine).groups(V2, {"memory.max": str(64 * MIB)})
    assert topology.available(str(machine)).count == 1
    assert topology.available(str(machine), bytes_each=0).count == 32


def test_a_machine_that_hides_everything(machine: Machine) -> None:
    assert topology.available(str(machine)) == Cores(1, "1 by affinity")
    assert topology.read(str(machine)) == Topology((Cpu(0, 0),), has_nodes=False)
    machine.write("proc/self/status", "Cpus_allowed_list:\t0-2\n")
    assert topology.available(str(machine)).count == 3


def test_this_machine() -> None:
    cores = topology.available()
    assert 1 <= cores.count <= len(os.sched_getaffinity(0))
    assert cores.why.startswith(f"{len(os.sched_getaffinity(0))} by affinity")
    assert {cpu.number for cpu in topology.read().cpus} <= os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", {0}),
        ("0-2,5,7-8\n", {0, 1, 2, 5, 7, 8}),
        ("", None),
        (None, None),
        ("1,,2", None),
        ("-1", None),
        ("2-1", None),
        ("0-99999", None),
        ("0-3:1/2", None),
        ("\u0661", None),
    ],
)
def test_lists(text: str | None, numbers: set[int] | None) -> None:
    assert kernel.parse_list(text) == numbers
    if numbers:
        assert kernel.format_list(numbers) == (text or "").strip()


# Which ones.


def numbers(machine: Machine) -> list[int]:
    return [cpu.number for cpu in topology.order(topology.read(str(machine)))]


@pytest.mark.parametrize("old_names", [False, True])
def test_two_sockets(machine: Machine, old_names: bool) -> None:
    server(machine, old_names=old_names)
    first = [number for pair in zip(range(8), range(8, 16), strict=True) for number in pair]
    assert numbers(machine) == first + [number + 16 for number in first]
    found = topology.read(str(machine))
    assert topology.plan(found, 4, "core") == [{0}, {8}, {1}, {9}]
    one, other = set(range(8)) | set(range(16, 24)), set(range(8, 16)) | set(range(24, 32))
    assert topology.plan(found, 3, "node") == [one, other, one]


def test_siblings_side_by_side(machine: Machine) -> None:
    """Other firmware numbers the threads of a core one after the other."""
    machine.cpus("0-7", siblings=lambda n: f"{n // 2 * 2}-{n // 2 * 2 + 1}").nodes("0-7")
    assert numbers(machine) == [0, 2, 4, 6, 1, 3, 5, 7]


def test_offline_and_forbidden_cpus(machine: Machine) -> None:
    server(machine, allowed="0-31")
    machine.write("sys/devices/system/cpu/online", "0-2,8,17-18\n")
    # 16, the sibling of 0, is off; 1 and 17 are one core; of the second node 8 is left.
    assert numbers(machine) == [0, 8, 1, 2, 17, 18]
    machine.groups(V2, {"cpuset.cpus.effective": "17-18"}, V2_MOUNT)
    assert numbers(machine) == [17, 18]


def test_unequal_nodes_share_in_proportion(machine: Machine) -> None:
    machine.cpus("0-5", siblings=str).nodes("0-1", "2-5")
    assert numbers(machine) == [0, 2, 1, 3, 4, 5]
    nodes = topology.plan(topology.read(str(machine)), 6, "node")
    assert nodes.count({0, 1}) == 2
    assert nodes.count({2, 3, 4, 5}) == 4


def test_big_and_little(machine: Machine) -> None:
    machine.cpus("0-5", siblings=str)
    for number, capacity in enumerate((446, 446, 446, 446, 1024, 1024)):
        machine.write(f"sys/devices/system/cpu/cpu{number}/cpu_capacity", f"{capacity}\n")
    assert numbers(machine) == [4, 5, 0, 1, 2, 3]
    machine.write("sys/devices/system/cpu/cpu5/cpu_capacity", "garbage\n")
    assert numbers(machine) == [4, 5, 0, 1, 2, 3]


def test_performance_and_efficiency_cores(machine: Machine) -> None:
    """Two large cores of two threads, four small ones of one: no second thread before those."""
    machine.cpus("0-7", siblings=lambda n: f"{n // 2 * 2}-{n // 2 * 2 + 1}" if n < 4 else str(n))
    machine.write("sys/devices/cpu_atom/cpus", "4-7\n")
    assert numbers(machine) == [0, 2, 4, 5, 6, 7, 1, 3]


def test_more_contexts_than_cpus(machine: Machine) -> None:
    machine.cpus("0-1", siblings=str).nodes("0-1")
    assert topology.plan(topology.read(str(machine)), 5, "core") == [{0}, {1}, {0}, {1}, {0}]
    config = Config("m:app", cores=5, pin="core")
    assert topology.explain(config, 5, str(machine)) == [
        (logging.INFO, "pin: each context to a core, CPUs 0-1 in all"),
        (
            logging.WARNING,
            "pin: 5 contexts on 2 CPUs: some are bound to the same one and cannot move apart",
        ),
    ]
    (line,) = topology.explain(config, 1, str(machine))
    assert line == (logging.INFO, "pin: each context to a core, CPUs 0 in all")


def test_one_node_is_worth_a_word(machine: Machine) -> None:
    machine.cpus("0-1", siblings=str).nodes("0-1")
    config = Config("m:app", cores=2, pin="node")
    assert (topology.explain(config, 2, str(machine)))[1][0] == logging.WARNING
    assert topology.explain(Config("m:app", cores=2), 2, str(machine)) == []


# Binding.


def test_nodes_that_are_not_known_are_refused(machine: Machine) -> None:
    machine.cpus("0-1", siblings=str)
    topology.check(Config(pin="core"), str(machine))
    with pytest.raises(ConfigError, match="NUMA nodes") as caught:
        topology.check(Config(pin="node"), str(machine))
    assert caught.value.hint == "--pin core"
    topology.check(Config(pin="node"), str(machine.nodes("0-1")))


def refuse(_pid: int, _cpus: set[int]) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_binding_that_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(ConfigError, match=r"pin: .* not permitted"):
        topology.check(Config(pin="core"))
    topology.check(Config(pin="off"))
    with caplog.at_level(logging.WARNING, "ppserver.error"):
        topology.pin(Config(pin="core"), 2)
    assert "Context 3 cannot be bound" in caplog.text


def test_only_the_calling_thread_is_bound() -> None:
    """Each thread gets its own CPU, though the first to be bound started the second."""
    before = os.sched_getaffinity(0)
    expected = topology.plan(topology.read(), 2, "core")
    found: list[set[int]] = []

    def context(slot: int) -> None:
        topology.pin(Config(pin="core"), slot)
        if slot == 0:
            follow(1)
        found.append(os.sched_getaffinity(0))

    def follow(slot: int) -> None:
        thread = threading.Thread(target=context, args=(slot,))
        thread.start()
        thread.join()

    follow(0)
    assert found == [expected[1], expected[0]]
    assert os.sched_getaffinity(0) == before
    assert topology.available().why.startswith(f"{len(before)} by affinity")


def test_off_binds_nothing() -> None:
    before = os.sched_getaffinity(0)
    topology.pin(Config(), 0)
    assert os.sched_getaffinity(0) == before
    assert topology._before_pin is None
