"""Runs pytest; tests that failed run once more, alone, after all others.

    python tests/again.py [PYTEST-OPTION...]

A test that passes then is *flaky*: it is named at the end, with what its first run said, and does
not fail the run. The same is appended to the file that $TEST_FLAKY names, which `.ci/run` prints
last. A flaky test is a fault to be mended, of the test or of the server.

No second chance has a run that ended early (`-x`), a module that could not be imported, a worker
that crashed, and a run in which more than `MANY` tests failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

MANY = 20
LISTED_BYTES_MAX = 20_000

# Where a run is asked to write down what failed.
VARIABLE = "TEST_FAILURES"


class Recorder:
    """A plugin that writes down what failed, in the process that hands out the tests."""

    def __init__(self, path: Path, config: pytest.Config) -> None:
        self.path = path
        self.failures: list[dict[str, str]] = []
        self.hopeless = ""  # why nothing is to be tried again
        self.options = options_of(config)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.hopeless = f"{report.nodeid} could not be collected"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        if report.when not in ("setup", "call", "teardown"):
            self.hopeless = f"a worker crashed in {report.nodeid}"
        # What goes wrong at the end of a module's servers may be the doing of any of its tests.
        module = report.nodeid.partition("::")[0]
        again = module if report.when == "teardown" else report.nodeid
        log = [report.longreprtext, *(f"--- {name}\n{text}" for name, text in report.sections)]
        self.failures.append(
            {"test": report.nodeid, "when": str(report.when), "again": again, "log": "\n".join(log)}
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.shouldfail or session.shouldstop:
            self.hopeless = self.hopeless or "the run ended early"
        found = {
            "failures": self.failures,
            "hopeless": self.hopeless,
            "options": self.options,
        }
        self.path.write_text(json.dumps(found))


def options_of(config: pytest.Config) -> list[str]:
    """What pytest was called with, without the tests it was to run."""
    given = [str(argument) for argument in config.invocation_params.args]
    return [argument for argument in given if argument not in config.args]


def register(config: pytest.Config) -> None:
    """Called by conftest.py."""
    path = os.environ.get(VARIABLE)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(path), config))


def run(arguments: list[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """One run of pytest: its exit status, and what a `Recorder` found."""
    path = folder / "failures.json"
    path.unlink(missing_ok=True)
    done = subprocess.run(
        # -P: the working directory is not the first place where modules are looked for.
        [sys.executable, "-P", "-m", "pytest", *arguments],
        env=os.environ | {VARIABLE: str(path)},
        check=False,
    )
    found = json.loads(path.read_text()) if path.exists() else {"hopeless": "nothing was written"}
    return done.returncode, found


def reason_against(found: dict[str, Any]) -> str:
    """Why the failures stand as they are; nothing if they are tried again."""
    if found["hopeless"]:
        return str(found["hopeless"])
    if not found["failures"]:
        return "nothing is known of what failed"
    if len(found["failures"]) > MANY:
        return f"{len(found['failures'])} failures are no accident"
    return ""


def listed(failures: list[dict[str, str]]) -> str:
    """The section *flaky*."""
    lines = []
    for failure in failures:
        lines.append(f"FLAKY {failure['test']} (in its {failure['when']}; passed when run alone)")
        lines += ["    " + line for line in failure["log"][:LISTED_BYTES_MAX].splitlines()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        status, found = run(arguments, Path(folder))
        if status != pytest.ExitCode.TESTS_FAILED:
            return status
        if reason := reason_against(found):
            print(f"again: not run again: {reason}", flush=True)
            return status
        failures = found["failures"]
        again = list(dict.fromkeys(failure["again"] for failure in failures))
        # A module that runs whole contains the tests of it that failed.
        again = [name for name in again if "::" not in name or name.split("::")[0] not in again]
        print(f"\nagain: {len(again)} once more, alone: {', '.join(again)}", flush=True)
        status, _ = run([*found["options"], "-n0", *again], Path(folder))
        if status != pytest.ExitCode.OK:
            return status
    text = listed(failures)
    print(f"\n=== flaky: {len(failures)} failed once and passed alone ===\n{text}", flush=True)
    if path := os.environ.get("TEST_FLAKY"):
        with open(path, "a") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
