"""What the applications under test share: a record that outlives a context."""

from __future__ import annotations

import os
import pathlib

EXPECTED = "expected by the test"


class ExpectedError(Exception):
    """Raised on purpose; the tests accept its traceback in the server's log."""

    def __init__(self, what: str = "raised") -> None:
        super().__init__(f"{what}, {EXPECTED}")


def record(line: str, name: str = "record") -> None:
    """Append a line in one write, so that lines of two contexts never mix."""
    path = pathlib.Path(os.environ["TEST_APP_DIRECTORY"]) / name
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)
