"""A real PostgreSQL server for the tests that need one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from contrib.bench import postgres


@contextlib.contextmanager
def running() -> Iterator[str]:
    """`contrib.bench.postgres.running`, or the test is skipped."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(postgres.running())
        except LookupError as why:
            pytest.skip(str(why))
        yield folder
