"""Many interpreters, for long, under load, with threads left in them: for `make test-all`."""

from __future__ import annotations

import concurrent.futures
import pathlib
import re
import signal
import sys

import pytest
import serving
from guests_site import Contexts, Start, get, starter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(serving.PEER != "ppserver", reason="a back end of ppserver"),
    pytest.mark.skipif(sys.version_info < (3, 13), reason="interpreters need Python 3.13"),
]


@pytest.fixture(autouse=True)
def long_form(more: bool) -> None:
    if not more:
        pytest.skip("only in the long form")


@pytest.fixture
def start(tmp_path: pathlib.Path, started: list[serving.Server]) -> Start:
    return starter(tmp_path, started)


def test_a_hundred_come_and_go_under_load(start: Start) -> None:
    """Contexts are replaced after a few requests, with threads left in them.

    Their memory comes back with the host, so the host is replaced now and then, too.
    """
    server = start(contexts=3, args=["--limit-max-requests", "30"])
    replaced = 0
    with serving.visitors(server) as (served, broken):
        while replaced < 100:
            least = replaced + 20
            for _ in range(4):
                get(server, "/daemon/sleeps")
            serving.wait_until(
                lambda least=least: server.log.count("Reached the limit of requests") >= least,
                seconds=300,
            )
            replaced = server.log.count("Reached the limit of requests")
            host = serving.descendants(server.pid)[1]
            server.process.send_signal(signal.SIGHUP)
            serving.wait_until(
                lambda host=host: host not in serving.descendants(server.pid), seconds=60
            )
    assert broken == []
    assert len(served) > 2000
    server.stop()


def test_eight_at_once_under_load(start: Start) -> None:
    server = start(contexts=8)
    with serving.visitors(server, 8) as (served, broken):
        serving.wait_until(lambda: len(set(served)) == 8 and len(served) >= 5000, seconds=120)
        with Contexts(server, 8) as contexts:
            for get_from in contexts.values():
                get_from("/daemon")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert broken == []
    server.check_log()


@pytest.mark.parametrize("app", ["app", "wsgi"])
@pytest.mark.parametrize("what", ["computes", "sleeps"])
def test_daemon_threads_are_alive_at_the_end(start: Start, app: str, what: str) -> None:
    """They take and give back their interpreter's GIL all the time."""
    for _ in range(5):
        server = start(f"guests:{app}", contexts=3)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            threads = [pool.submit(get, server, f"/daemon/{what}") for _ in range(8)]
            assert all(one.result(serving.MUST_SECONDS) for one in threads)
        server.stop()


def test_reload_with_threads_and_running_requests(start: Start) -> None:
    server = start(contexts=3)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number in range(5):
            get(server, "/daemon/computes")
            waiting = [pool.submit(get, server, "/hold") for _ in range(4)]
            server.wait_for_record("holding", 4 * (number + 1))
            host = serving.descendants(server.pid)[1]
            server.process.send_signal(signal.SIGHUP)
            serving.wait_until(lambda number=number: server.log.count("Reloaded: ") == number + 1)
            (server.directory / "go").touch()
            assert all(one.result(serving.MUST_SECONDS) for one in waiting)
            serving.wait_until(
                lambda host=host: host not in serving.descendants(server.pid), seconds=60
            )
            (server.directory / "go").unlink()
    server.stop()


def test_an_import_that_fails_in_one_of_them(start: Start) -> None:
    """When a context is replaced: the others serve, and the next try may do better."""
    server = start(contexts=2, args=["--limit-max-requests", "50"])
    (server.directory / "fail-one-import").touch()
    with serving.visitors(server) as (served, broken):
        serving.wait_until((server.directory / "failed-one-import").exists)
        more = len(set(served))
        serving.wait_until(lambda: len(set(served)) > more + 2)
    assert broken == []
    assert re.search("importing guests failed: ExpectedError", server.log)
    server.stop()
