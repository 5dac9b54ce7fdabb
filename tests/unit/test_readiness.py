"""Telling a service manager that the server serves, and being told."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket

import pytest

from ppserver.observe import readiness


def test_said_and_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(readiness.Listener()) as listener:
        monkeypatch.setenv(readiness.VARIABLE, listener.path)
        readiness.tell(["http://127.0.0.1:1", "unix:/a"])
        assert listener.urls(60) == ["http://127.0.0.1:1", "unix:/a"]
        assert listener.urls(0.01) is None


def test_as_systemd_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv(readiness.VARIABLE, path)
        readiness.tell(["http://127.0.0.1:1"])
        assert manager.recv(4096).decode().splitlines() == [
            "READY=1",
            f"MAINPID={os.getpid()}",
            "STATUS=running on http://127.0.0.1:1",
        ]


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/at/all", "@nobody-listens", "/" * 200])
def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv(readiness.VARIABLE, path)
    readiness.tell(["http://127.0.0.1:1"])
