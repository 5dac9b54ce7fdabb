"""How many contexts, where, and as whom."""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading

import pytest

from ppserver import contexts
from ppserver.config import Config
from ppserver.errors import ConfigError, StartupError
from ppserver.supervisor import reap_orphans


@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        ({}, "inline"),
        ({"cores": 2}, "processes"),
        ({"contexts": "processes"}, "processes"),
    ],
)
def test_choose(settings: dict[str, object], backend: str) -> None:
    assert contexts.choose(Config(**settings)) == backend  # type: ignore[arg-type]


def machine(root: pathlib.Path, group: str, files: dict[str, str]) -> str:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        (
            "3:cpuset:/x\n2:cpu,cpuacct:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "300000", "cpu/c/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        (
            "2:cpu,cpuacct:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"},
            None,
        ),
    ],
)
def test_quota(
    tmp_path: pathlib.Path, group: str, files: dict[str, str], quota: float | None
) -> None:
    assert contexts.cpu_quota(machine(tmp_path, group, files)) == quota


def test_available_cores(tmp_path: pathlib.Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert contexts.available_cores(str(tmp_path)) == cores
    small = machine(tmp_path, "0::/\n", {"cpu.max": "10000 100000\n"})
    assert contexts.available_cores(small) == 1
    assert contexts.context_count(Config(cores="all")) == contexts.available_cores()


def test_pid_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pid"
    with contexts.pid_file(Config(pid=str(path))):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()
    with contexts.pid_file(Config(pid=str(path))):
        path.write_text("1\n")
    assert path.exists()
    with pytest.raises(StartupError, match="pid file"), contexts.pid_file(Config(pid="/nowhere/x")):
        pass


def test_several_contexts_need_the_main_thread() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            contexts.run(Config("m:app", cores=2, port=0))
        except StartupError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_orphans_are_reaped_but_not_loaders() -> None:
    ended = [subprocess.Popen(["true"]) for _ in range(3)]
    for process in ended:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    reap_orphans({process.pid for process in ended})
    assert ended[0].wait() == 0
    reap_orphans(())
    for process in ended[1:]:
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        process.wait()


def test_identity() -> None:
    assert contexts.identity(Config()) == (None, None)
    assert contexts.identity(Config(user="root", group="root")) == (0, 0)
    assert contexts.identity(Config(user="12345", group="54321")) == (12345, 54321)
    with pytest.raises(ConfigError, match="no user"):
        contexts.identity(Config(user="no-such-user"))
    with pytest.raises(ConfigError, match="no group"):
        contexts.identity(Config(group="no-such-group"))
