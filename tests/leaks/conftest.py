"""What tests of faults and leaks share."""

from __future__ import annotations

import os

import pytest
import serving

# Only this server is held to what is tested here.
collect_ignore_glob = [] if serving.PEER == "ppserver" else ["test_*.py"]


@pytest.fixture(scope="session")
def more() -> bool:
    """Whether to run the long form: `make test-more` sets TEST_MORE."""
    return bool(os.environ.get("TEST_MORE"))
