"""What tests of faults and leaks share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def more() -> bool:
    """Whether to run the long form: `make test-more` sets TEST_MORE."""
    return bool(os.environ.get("TEST_MORE"))
