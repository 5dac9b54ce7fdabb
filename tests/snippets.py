"""Run a piece of Python in an interpreter of its own, where warnings are errors.

For what cannot be undone in the process of the tests, and for the end of an interpreter: it has to
end with 0 and must not write to standard error.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_python(
    code: str, *arguments: str, env: dict[str, str] | None = None, timeout: float = 120
) -> str:
    """What the program prints. Fails when it ends badly or says anything on standard error."""
    variables = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONIOENCODING": "utf-8"}
    variables["PYTHONPATH"] = os.pathsep.join(
        filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])
    )
    variables.update(env or {})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    report = f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, report
    assert done.stderr == "", report
    return done.stdout
