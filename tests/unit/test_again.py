"""`tests/again.py`, on test files made for it: what failed runs once more, alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import again
import pytest
import serving

CONFTEST = """
import again

def pytest_configure(config):
    again.register(config)
"""
# Passes from its second run on.
ONCE = """
import os, pathlib, pytest

def first():
    mark = pathlib.Path(__file__).with_suffix(".mark")
    if mark.exists():
        return False
    mark.touch()
    return True
"""
FLAKY = """
def test_flaky():
    print("what was printed")
    assert not first(), "only at first"
"""
GOOD = """
def test_good():
    pass
"""
BAD = """
def test_bad():
    assert False, "always"
"""
FIXTURE = """
@pytest.fixture(scope="module")
def server():
    assert not first(), "no start"
    yield
def test_one(server): pass
def test_two(server): pass
"""
TEARDOWN = """
@pytest.fixture(scope="module")
def server():
    seen = []
    yield seen
    assert "one" not in seen, "found at the end"
def test_one(server): server.append("one")
def test_two(server): server.append("two")
"""
CRASH = """
def test_crash():
    if first():
        os.abort()
"""
ODD = """
@pytest.mark.parametrize("name", ["a b", "x::y", "[z]", "\\u00e9\\n"])
def test_odd(name):
    mark = pathlib.Path(__file__).with_name(name.encode().hex())
    if not mark.exists():
        mark.touch()
        assert False
"""


MANY = "@pytest.mark.parametrize('n', range(30))\ndef test_n(n): assert 0"


class Run:
    def __init__(self, folder: Path, *arguments: str, **files: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "conftest.py").write_text(CONFTEST)
        for name, text in files.items():
            (folder / f"test_{name}.py").write_text(ONCE + text)
        env = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
        env |= {"PYTHONPATH": str(serving.ROOT / "tests"), "TEST_FLAKY": str(folder / "flaky")}
        done = subprocess.run(
            [sys.executable, str(serving.ROOT / "tests" / "again.py"), *arguments],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.status = done.returncode
        self.output = done.stdout
        flaky = folder / "flaky"
        self.flaky = flaky.read_text() if flaky.exists() else ""


@pytest.mark.slow
def test_what_passes_alone_is_listed_and_does_not_fail(tmp_path: Path) -> None:
    files = {"good": GOOD, "flaky": FLAKY, "fixture": FIXTURE, "odd": ODD}
    run = Run(tmp_path, "-n", "2", "--dist", "loadfile", "-k", "not nothing", ".", **files)
    assert run.status == 0, run.output
    assert "FLAKY test_flaky.py::test_flaky (in its call; passed when run alone)" in run.flaky
    assert "only at first" in run.flaky
    assert "what was printed" in run.flaky
    assert run.flaky.count("FLAKY test_fixture.py") == 2
    assert "in its setup" in run.flaky
    assert run.flaky.count("FLAKY test_odd.py") == 4
    assert run.flaky.count("FLAKY") == 7
    assert run.flaky in run.output


@pytest.mark.slow
def test_what_fails_again_fails(tmp_path: Path) -> None:
    """At the end of a module, too: the last test alone would pass, an earlier one is the cause."""
    run = Run(tmp_path, flaky=FLAKY, bad=BAD, teardown=TEARDOWN)
    assert (run.status, run.flaky) == (1, ""), run.output
    assert "1 failed, 3 passed, 1 error" in run.output  # in the second run


@pytest.mark.wide
@pytest.mark.slow
def test_a_crash_is_a_failure(tmp_path: Path) -> None:
    run = Run(tmp_path, "-n", "1", crash=CRASH)
    assert (run.status, run.flaky) == (1, ""), run.output
    assert "not run again: a worker crashed" in run.output


@pytest.mark.wide
@pytest.mark.slow
def test_no_second_chance(tmp_path: Path) -> None:
    """For a run that ended early, what cannot be imported, and very many failures."""
    run = Run(tmp_path / "a", "-x", flaky=FLAKY)
    assert (run.status, run.flaky) == (1, "")
    assert "the run ended early" in run.output
    run = Run(tmp_path / "b", bad="import nothing_of_this_name")
    assert (run.status, run.flaky) == (2, "")
    run = Run(tmp_path / "c", many=MANY)
    assert (run.status, run.flaky) == (1, "")
    assert "30 failures are no accident" in run.output


def test_reasons() -> None:
    failure = {"test": "a", "when": "call", "again": "a", "log": ""}
    found = {"hopeless": "", "failures": [failure], "options": []}
    assert again.reason_against(found) == ""
    assert "crashed" in again.reason_against(found | {"hopeless": "a worker crashed"})
    assert "nothing" in again.reason_against(found | {"failures": []})
    assert "no accident" in again.reason_against(found | {"failures": [failure] * 21})
