"""The benchmark itself: its floor answers as it must, its figures add up, its tables render."""

import io
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from contrib.bench import measure, peers, report, workloads
from contrib.bench.measure import MeasureError, Placement

PLACE = Placement(0, 1, sys.executable, peers.ROOT)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the floor is a C program")
@pytest.mark.parametrize("name", ["plain", "pipeline", "json", "headers", "big", "close"])
def test_the_floor_answers_right(name: str) -> None:
    peers.build_bare()
    bare = next(peer for peer in peers.catalogue() if peer.name == peers.BASELINE)
    workload = next(load for load in workloads.catalogue() if load.name == name)
    with measure.running(bare, workload.app, "asgi", PLACE, pinned=False) as (pid, port):
        measure.verify(workload, port)
        assert measure.tree(pid) == [pid]
        assert measure.tree_memory_kb(pid)["Pss"] > 0


@pytest.mark.slow
def test_a_wrong_answer_is_found() -> None:
    peers.build_bare()
    bare = next(peer for peer in peers.catalogue() if peer.name == peers.BASELINE)
    plain = next(load for load in workloads.catalogue() if load.name == "plain")
    wrong = workloads.Workload("x", "x", "plain", b"something else", bare=True)
    with measure.running(bare, "plain", "asgi", PLACE, pinned=False) as (_, port):
        measure.verify(plain, port)
        with pytest.raises(MeasureError, match="wrong answer"):
            measure.verify(wrong, port)


@pytest.mark.slow
def test_a_server_that_ends_at_start_is_reported() -> None:
    broken = peers.Peer("broken", lambda target: [sys.executable, "-c", "raise SystemExit('no')"])
    with pytest.raises(MeasureError, match=r"ended with 1 at start: no"):
        with measure.running(broken, "plain", "asgi", PLACE, pinned=False):
            pass


def test_cpu_time_includes_ended_threads() -> None:
    def burn() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    before = measure.tree_cpu_ns(os.getpid())
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    assert measure.tree_cpu_ns(os.getpid()) - before >= 50_000_000


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
        ),
    ],
)
def test_responses_are_read_whole(text: bytes, body: bytes) -> None:
    stream = io.BytesIO(text + b"HTTP/1.1 204 Next\r\n\r\n")
    assert measure.read_response(stream)[2] == body
    assert measure.read_response(stream)[0] == 204


def test_every_peer_has_a_command_line() -> None:
    for peer in peers.catalogue():
        for interface in peer.interfaces:
            line, environ = peers.command_line(
                peer, "plain", interface, 1234, "python3", Path("tree")
            )
            assert any("1234" in part for part in line)
            assert environ["PYTHONHASHSEED"] == "0"


def test_tables_show_median_spread_and_trouble() -> None:
    def sample(cpu: float, **more: float) -> dict[str, float]:
        base = {"cpu_us": cpu, "rate": 1e6 / cpu, "p50_us": 10, "p99_us": 20, "pss_kb": 2048}
        return base | {"response_bytes": 133, "requests": 5, "errors": 0, "foreign": 0} | more

    run = {
        "date": "today",
        "commit": "abc",
        "rounds": 3,
        "seconds": 5,
        "server_core": 0,
        "load_core": 1,
        "machine": {
            "cpu": "a processor",
            "cores": 2,
            "system": "Linux",
            "python": "CPython",
            "compiler": "cc",
            "tcp": "cubic",
            "load": 0.1,
        },
        "versions": {"other": {"other": "1.2"}},
        "peers": ["ppserver", "other", "third"],
        "workloads": {
            "plain": {
                "title": "Plaintext",
                "samples": {
                    "ppserver": [sample(5), sample(6), sample(4)],
                    "other": [sample(10, errors=2), sample(10, foreign=0.5), sample(10)],
                    "third": [],
                },
                "failures": {"third": "it crashed"},
            }
        },
    }
    text = report.render(run)
    assert "other 1.2" in text
    row = next(line for line in text.splitlines() if line.startswith("| other"))
    assert [cell.strip() for cell in row.split("|")][2:5] == ["10.0", "10.0..10.0", "2.00"]
    assert "2 errors, core shared in 1 of 3" in row
    own = next(line for line in text.splitlines() if line.startswith("| ppserver"))
    assert "4.00..6.00" in own
    assert "third is not in it: it crashed" in text
    assert "1.00 of the baseline" in report.render(run, run)
