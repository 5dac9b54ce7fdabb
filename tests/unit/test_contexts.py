"""How many contexts, where, and as whom."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

from ppserver.config import Config
from ppserver.errors import ConfigError, StartupError
from ppserver.machine import topology
from ppserver.supervision import launch, pidfile, plan, privileges


def test_all_cores() -> None:
    config = Config(cores="all")
    assert plan.context_count(config) == plan.available(config).count
    assert plan.available(config) == topology.available()
    assert plan.context_count(Config(cores=3)) == 3


def test_banner_names_the_limit_and_the_binding(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    why = "16 by affinity, 2 by the cgroup's CPU quota (1.5)"
    monkeypatch.setattr(topology, "available", lambda **_: topology.Cores(2, why))
    with caplog.at_level("INFO", "ppserver.error"):
        plan.banner(Config(cores="all", pin="core"), "processes", "asgi", "uvloop")
    first, second, third, fourth = caplog.messages[:4]
    assert first.endswith("ASGI, loop uvloop, 2 cores available")
    assert second == "contexts: 2 \N{MULTIPLICATION SIGN} processes"
    assert third == f"cores: {why}"
    assert fourth.startswith("pin: each context to a core")
    caplog.clear()
    with caplog.at_level("INFO", "ppserver.error"):
        plan.banner(Config(cores=2), "processes", "wsgi", "auto")
    assert len(caplog.messages) == 2


def test_pid_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pid"
    with pidfile.held(Config(pid=str(path))):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()
    with pidfile.held(Config(pid=str(path))):
        path.write_text("1\n")
    assert path.exists()
    with pytest.raises(StartupError, match="pid file"), pidfile.held(Config(pid="/nowhere/x")):
        pass


@pytest.mark.parametrize(
    ("settings", "given", "supervised"),
    [
        ({}, None, False),
        ({}, (), True),
        ({"cores": 2}, None, True),
        ({"cores": 1}, ("cores",), True),
        ({"contexts": "processes"}, None, True),
        ({"supervise": "always"}, None, True),
        ({"supervise": "never"}, (), False),
        ({"supervise": "never", "limit_max_requests": 5}, (), False),
        ({"limit_max_requests": 5}, None, True),
        ({"user": "nobody"}, None, True),
        ({"app": print}, (), False),
        ({"app": print, "supervise": "always"}, (), True),
    ],
)
def test_who_is_supervised(
    settings: dict[str, Any], given: tuple[str, ...] | None, supervised: bool
) -> None:
    config = Config(**{"app": "m:app", **settings})
    assert plan.is_supervised(config, given)[0] is supervised


def test_who_is_supervised_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert not plan.is_supervised(Config("m:app"), ())[0]
    assert plan.is_supervised(Config("m:app"), ("cores",))[0]
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert plan.is_supervised(Config("m:app"), ())[0]


def test_never_supervised_is_for_one_context() -> None:
    for settings in ({"cores": 2}, {"cores": "all"}, {"contexts": "threads"}):
        with pytest.raises(ConfigError, match="supervise"):
            Config("m:app", supervise="never", **settings)  # type: ignore[arg-type]


def test_several_contexts_need_the_main_thread() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            launch.run(Config("m:app", cores=2, port=0))
        except StartupError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


PID_FILE = """
import sys
from ppserver.supervision import pidfile
from ppserver.config import Config
with pidfile.held(Config(pid=sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_pid_file_of_a_server_that_runs_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pid"
    command = [sys.executable, "-c", PID_FILE, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(StartupError, match=rf"process {first.pid}\n"):
            with pidfile.held(Config(pid=str(path))):
                pass
        assert path.read_text() == f"{first.pid}\n"
        first.kill()
        first.communicate()
    with pidfile.held(Config(pid=str(path))):  # A number that is left behind is nobody's.
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


BECOME = """
import os, sys
from ppserver.supervision import privileges
from ppserver.config import Config
privileges.drop(Config(user=sys.argv[1]))
print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ["HOME"], os.environ.get("USER"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_nothing_of_root_is_left() -> None:
    """A number without an account: neither the group of root, nor its home directory."""
    environ = {**os.environ, "HOME": "/root", "USER": "root", "LOGNAME": "root"}
    out = subprocess.run(
        [sys.executable, "-c", BECOME, "54321"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ids = (54321,) * 3
    assert out == f"{ids} {ids} [54321] / None\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_descriptors_that_are_closed(closed: tuple[int, ...]) -> None:
    program = (
        "import os; from ppserver.machine import terminal; terminal.open_standard_descriptors()\n"
        "found = [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)]\n"
        f"assert all(found[fd] == os.devnull for fd in {closed}), found\n"
        "assert all(os.get_inheritable(fd) for fd in range(3))\n"
        "assert os.dup(0) > 2"
    )
    shell = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_identity() -> None:
    assert privileges.identity(Config()) == (None, None)
    assert privileges.identity(Config(user="root", group="root")) == (0, 0)
    assert privileges.identity(Config(user="12345", group="54321")) == (12345, 54321)
    assert privileges.identity(Config(user="54321")) == (54321, 54321)
    with pytest.raises(ConfigError, match="no user"):
        privileges.identity(Config(user="no-such-user"))
    with pytest.raises(ConfigError, match="no group"):
        privileges.identity(Config(group="no-such-group"))
