"""How many contexts, where, and as whom."""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading
from typing import Any

import pytest

from ppserver import contexts, topology
from ppserver.config import Config
from ppserver.errors import ConfigError, StartupError
from ppserver.supervisor import reap_orphans


def test_all_cores() -> None:
    config = Config(cores="all")
    assert contexts.context_count(config) == contexts.available(config).count
    assert contexts.available(config) == topology.available()
    assert contexts.context_count(Config(cores=3)) == 3


def test_banner_names_the_limit_and_the_binding(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    why = "16 by affinity, 2 by the cgroup's CPU quota (1.5)"
    monkeypatch.setattr(topology, "available", lambda **_: topology.Cores(2, why))
    with caplog.at_level("INFO", "ppserver.error"):
        contexts.banner(Config(cores="all", pin="core"), "processes", "asgi", "uvloop")
    first, second, third, fourth = caplog.messages[:4]
    assert first.endswith("ASGI, loop uvloop, 2 cores available")
    assert second == "contexts: 2 \N{MULTIPLICATION SIGN} processes"
    assert third == f"cores: {why}"
    assert fourth.startswith("pin: each context to a core")
    caplog.clear()
    with caplog.at_level("INFO", "ppserver.error"):
        contexts.banner(Config(cores=2), "processes", "wsgi", "auto")
    assert len(caplog.messages) == 2


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
    assert contexts.is_supervised(config, given)[0] is supervised


def test_who_is_supervised_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert not contexts.is_supervised(Config("m:app"), ())[0]
    assert contexts.is_supervised(Config("m:app"), ("cores",))[0]
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert contexts.is_supervised(Config("m:app"), ())[0]


def test_never_supervised_is_for_one_context() -> None:
    for settings in ({"cores": 2}, {"cores": "all"}, {"contexts": "threads"}):
        with pytest.raises(ConfigError, match="supervise"):
            Config("m:app", supervise="never", **settings)  # type: ignore[arg-type]


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
