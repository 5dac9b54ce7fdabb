"""--pin and --cores all with real processes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import sys

import pytest
import serving

from ppserver.machine import topology

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="settings of ppserver"),
]


def test_each_process_has_a_cpu_of_its_own(tmp_path: pathlib.Path) -> None:
    count = 3
    expected = topology.plan(topology.read(), count, "core")
    with serving.running(
        "lives:app", tmp_path, contexts=count, args=["--pin", "core", "--contexts", "processes"]
    ) as server:
        (host,) = serving.hosts(server.pid)
        found = [os.sched_getaffinity(pid) for pid in serving.contexts(server.pid)]
        assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
        # What loads, and what watches, goes where there is room.
        for pid in (host, server.pid):
            assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    assert "pin: each context to a core" in server.log


@pytest.mark.parametrize("place", ["threads", "interpreters"])
def test_each_thread_has_a_cpu_of_its_own(tmp_path: pathlib.Path, place: str) -> None:
    if place == "interpreters" and sys.version_info < (3, 13):
        pytest.skip("interpreters are used from Python 3.13 on")
    count = 3
    expected = topology.plan(topology.read(), count, "core")
    args = ["--pin", "core", "--contexts", place]
    with serving.running("lives:wsgi", tmp_path, contexts=count, args=args) as server:
        (host,) = serving.hosts(server.pid)
        affinities = []
        for folder in pathlib.Path(f"/proc/{host}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # Some only begin others.
                affinities.append((folder.name, os.sched_getaffinity(int(folder.name))))
        assert len(affinities) > count
        found = {frozenset(cpus) for task, cpus in affinities if task != str(host)}
        assert found == {frozenset(cpus) for cpus in expected}
        assert os.sched_getaffinity(host) == os.sched_getaffinity(0)


def test_one_context_in_the_process_itself(tmp_path: pathlib.Path) -> None:
    (expected,) = topology.plan(topology.read(), 1, "core")
    with serving.running("lives:app", tmp_path, args=["--pin", "core"]) as server:
        assert os.sched_getaffinity(server.pid) == expected
    cores = topology.available().count
    assert re.search(rf"{cores} cores? available", server.log)


def test_all_cores_within_an_affinity(tmp_path: pathlib.Path) -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    os.sched_setaffinity(0, {one})
    try:
        server = serving.launch(
            "lives:app", tmp_path, args=["--cores", "all", "--supervise", "auto"]
        )
    finally:
        os.sched_setaffinity(0, before)
    server.wait_started()
    assert os.sched_getaffinity(server.pid) == {one}
    server.stop()
    assert "cores: 1 by affinity" in server.log
    assert "contexts: 1 \N{MULTIPLICATION SIGN} processes" in server.log
