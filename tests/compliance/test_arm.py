"""The C units of base and proto, built for AArch64 and run by an emulator: NEON scans included."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import h1dump
import pytest

COMPILER = shutil.which("aarch64-linux-gnu-gcc")
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
UNITS = ["h1_scan", "h1_parse", "h1_body", "h1_write", "h1_conn", "base"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PPSERVER_SANITIZER" in os.environ, reason="no part of the extension is used here"
    ),
    pytest.mark.skipif(
        COMPILER is None, reason="no aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu)"
    ),
    pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64 (Debian: qemu-user)"),
]


def emulated(sources: list[str], target: pathlib.Path) -> list[str]:
    assert COMPILER is not None
    assert EMULATOR is not None
    h1dump.build(sources, target, COMPILER, "-static", "-Wall", "-Wextra", "-Werror")
    return [EMULATOR, str(target)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("unit", UNITS)
def test_units(unit: str, tmp_path: pathlib.Path) -> None:
    command = emulated([f"test_{unit}.c", "harness.c"], tmp_path / unit)
    run = subprocess.run(command, capture_output=True, text=True, env=h1dump.environment())
    assert run.returncode == 0, run.stderr
    assert "tests passed" in run.stdout


def test_the_wire_cases_with_neon(tmp_path: pathlib.Path) -> None:
    command = emulated(["h1_dump.c", "h1_feed.c"], tmp_path / "h1_dump")
    cases = [case for case in h1dump.read_cases() if case.limits is None]
    logs = h1dump.dump([case.data for case in cases], "--scan", "neon", program=command)
    assert logs == [case.events for case in cases]
