"""Fixtures that every test may use: see `serving` for what a served application offers."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import again
import matrix
import postgres as postgresql
import redis_server
import serving


def pytest_configure(config: pytest.Config) -> None:
    again.register(config)
    wanted = os.environ.get("TEST_SANITIZER", "")
    if wanted:
        from ppserver import _native

        if wanted not in str(_native.BUILD["type"]):
            raise pytest.UsageError(f"{_native.__file__} is not built with {wanted} sanitizer")
    config.addinivalue_line("markers", "slow: takes more than a quarter of a second")
    config.addinivalue_line(
        "markers",
        "peer_differs(reason): the reference server is known to differ; it must fail there",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    matrix.select(config, items)
    if serving.PEER == "ppserver":
        return
    for item in items:
        for mark in item.iter_markers("peer_differs"):
            item.add_marker(
                pytest.mark.xfail(reason=f"{serving.PEER}: {mark.args[0]}", strict=True)
            )


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    """A server in the test's own process puts its application's folder before this build's."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., serving.Server]]:
    """``serve("module:app", loop=..., contexts=...)``: a server shared by the module.

    The same arguments give the same server. At the end of the module each one is stopped by
    SIGTERM; a bad exit code or a traceback nobody announced fails the module's last test.
    """
    servers: dict[str, serving.Server] = {}
    with contextlib.ExitStack() as stack:

        def start(app: str, **options: Any) -> serving.Server:
            key = repr((app, sorted(options.items())))
            if key not in servers:
                directory = tmp_path_factory.mktemp("server")
                servers[key] = stack.enter_context(serving.running(app, directory, **options))
            return servers[key]

        yield start


@pytest.fixture
def started() -> Iterator[list[serving.Server]]:
    """Servers of one test; those that it has not stopped are killed at its end."""
    servers: list[serving.Server] = []
    yield servers
    for server in servers:
        if server.process.poll() is None:
            server.kill()
        server.wait()


# Every loop with one context and with two, and two as threads and as interpreters.
SETUPS = [
    ("asyncio", 1, "auto"),
    ("asyncio", 2, "processes"),
    ("asyncio", 2, "threads"),
    *([("asyncio", 2, "interpreters")] if sys.version_info >= (3, 13) else []),
    ("uvloop", 1, "auto"),
    ("uvloop", 2, "processes"),
]


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: "-".join(map(str, setup)))
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options for `serve`: a loop, a number of contexts and where they live."""
    loop, contexts, place = request.param
    return {"loop": loop, "contexts": contexts, "place": place}


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """Where a fresh PostgreSQL has its socket."""
    with postgresql.running() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres(postgres_folder: str) -> str:
    """The same as an address."""
    return f"postgresql://test@/postgres?host={postgres_folder}"


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """Where a fresh Redis has its socket."""
    with redis_server.running() as path:
        yield path


@pytest.fixture(scope="session")
def more() -> bool:
    """Whether to run the long form: `make test-all` sets TEST_MORE."""
    return bool(os.environ.get("TEST_MORE"))
