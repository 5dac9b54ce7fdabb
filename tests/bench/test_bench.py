"""The benchmark itself: its floor answers as it must, its figures add up, its tables render."""

import ctypes
import errno
import io
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import serving

from contrib.bench import gate, generators, measure, page, peers, report, run, targets, workloads
from contrib.bench.generators import MeasureError
from contrib.bench.measure import Placement

PLACE = Placement(0, 1, sys.executable, peers.ROOT)


def io_uring_is_allowed() -> bool:
    """io_uring_setup(2) without parameters fails either way: what matters is how."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(425, 1, None) == -1
    return ctypes.get_errno() == errno.EFAULT


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the floor is a C program")
@pytest.mark.parametrize("floor", ["bare", "bare-uring"])
@pytest.mark.parametrize("name", ["plain", "pipeline", "json", "headers", "big", "close"])
def test_the_floor_answers_right(name: str, floor: str) -> None:
    bare = next(peer for peer in peers.catalogue() if peer.name == floor)
    try:
        peers.prepare(bare, sys.executable, peers.ROOT)
    except peers.SetupError as why:
        if floor == peers.BASELINE or "liburing" not in str(why):
            raise
        pytest.skip("liburing-dev is not installed")
    if floor != peers.BASELINE and not io_uring_is_allowed():
        pytest.skip("io_uring is switched off here")
    workload = next(load for load in workloads.catalogue() if load.name == name)
    with measure.running(bare, workload.app, "asgi", PLACE, pinned=False) as (pid, port):
        measure.verify(workload, port)
        assert measure.tree(pid) == [pid]
        # Another that runs meanwhile shares pages with it, and changes both.
        whole, worker = measure.tree_memory_kb(pid)["Pss"], measure.worker_pss_kb(pid, 1)
        assert worker == pytest.approx(whole, rel=0.5)


@pytest.mark.slow
def test_every_workload_is_answered() -> None:
    own = next(peer for peer in peers.catalogue() if peer.name == "ppserver")
    for workload in workloads.catalogue():
        if workload.needs:
            continue  # They take a while to prepare, and have tests of their own.
        where = (own, workload.app, workload.interface, PLACE)
        with measure.running(*where, pinned=False) as (_, port):
            measure.verify(workload, port)


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
                peer, "plain", interface, 1234, sys.executable, Path("tree")
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


def test_the_page_shows_every_server_and_workload() -> None:
    def sample(cpu: float) -> dict[str, float]:
        base = {"cpu_us": cpu, "rate": 1e6 / cpu, "p50_us": 10, "p99_us": 20, "p999_us": 30}
        base |= {"pss_kb": 2048, "response_bytes": 133, "requests": 5, "errors": 0, "foreign": 0}
        return base

    def workload(title: str, **cpu: float) -> dict[str, object]:
        samples = {name: [sample(value)] for name, value in cpu.items()}
        return {"title": title, "samples": samples, "failures": {}}

    run = {
        "date": "today",
        "commit": "abc",
        "rounds": 1,
        "seconds": 1,
        "server_core": 0,
        "load_core": 1,
        "machine": {
            "cpu": "a <processor>",
            "cores": 2,
            "system": "Linux",
            "python": "CPython",
            "compiler": "cc",
            "tcp": "cubic",
            "load": 0.1,
        },
        "versions": {},
        "peers": ["ppserver", "other"],
        "workloads": {
            "plain": workload("Plaintext", ppserver=5.0, other=10.0),
            "plain@2": workload("Plaintext, 2 workers", ppserver=5.0, other=10.0),
            "plain-8": workload("Plaintext, 8", ppserver=6.0, other=12.5),
            "slow-8": workload("HttpServer, 8", ppserver=60.0),
        },
    }
    shown = page.render(run)
    document = ElementTree.fromstring(re.sub("^<!DOCTYPE html>", "", shown))
    pictures = list(document.iter("{http://www.w3.org/2000/svg}svg"))
    # At 8 connections; four of throughput and latency; over workers; one for each workload.
    assert len(pictures) == 1 + 4 + 1 + 4
    texts = [text.text for text in pictures[0].iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1::2] == ["ppserver", "other", "ppserver, 'Slow'"]
    assert texts[2::2] == ["6.00 µs", "12.5 µs", "60.0 µs"]
    assert "a &lt;processor&gt;" in shown
    assert "nan" not in shown.lower().replace("nanoseconds", "")


# ---- what is promised ----


def run_of(**servers: tuple[float, ...]) -> targets.Run:
    samples = {name: [{"cpu_us": cpu} for cpu in values] for name, values in servers.items()}
    return {"workloads": {"plain": {"samples": samples}}}


def test_a_target_compares_the_turns_of_each_round() -> None:
    """The second round's machine is half as fast; one server failed after the first."""
    kept = targets.beside("plain", 0.5).look(run_of(ppserver=(4, 9, 4), a=(10, 20, 9), b=(11,)))
    assert kept is not None
    assert (kept.figure, kept.met) == (4 / 9, True)
    assert kept.text == "4.00 beside 10.0 of a; by round 0.40..0.45"
    missed = targets.beside("plain", 0.4).look(run_of(ppserver=(5,), a=(12,), b=(14,)))
    assert missed is not None
    assert not missed.met
    assert "12.0 of a" in missed.text


def test_ours_and_the_floor_are_no_peers() -> None:
    run = run_of(ppserver=(5,), bare=(1,), **{"ppserver-uvloop": (1,)})
    assert targets.beside("plain", 0.5).look(run) is None
    floor = targets.floor("plain", 1.5).look(run)
    assert floor is not None
    assert not floor.met


def test_two_contexts_must_be_worth_nearly_two() -> None:
    run = run_of(ppserver=(5,))
    run["workloads"]["plain@2"] = {"samples": {"ppserver": [{"cpu_us": 5.2}]}}
    kept = targets.scaling(1.9).look(run)
    assert kept is not None
    assert (round(kept.figure, 2), kept.met) == (1.92, True)
    run["workloads"]["plain@2"]["samples"]["ppserver"][0]["cpu_us"] = 6
    missed = targets.scaling(1.9).look(run)
    assert missed is not None
    assert not missed.met


def test_targets_of_which_a_run_says_nothing_are_left_out() -> None:
    assert targets.render({"workloads": {}}) == ""
    text = targets.render(run_of(ppserver=(5,), uvicorn=(20,)))
    assert text.count("ASGI plaintext, 64 connections") == 1
    assert "met" in text
    assert targets.render(run_of(ppserver=(15,), uvicorn=(20,))).count("**missed**") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastapi", "django", "django-wsgi", "flask"])
def test_an_application_without_a_server(name: str) -> None:
    serving.require(name.partition("-")[0])
    load = next(load for load in workloads.catalogue() if load.name == name)
    assert run.is_framework(load)
    with run.alone(load, PLACE, 0.05) as calls:
        output, errors = calls.communicate(timeout=30)
    assert calls.returncode == 0, errors
    assert float(output) > 0


def test_the_servers_own_is_told_by_pairs() -> None:
    found: dict[str, Any] = {"workloads": {"flask": {}}}
    assert targets.above_alone("flask", 1.5).look(found) is None
    pairs = [(100.0, 99.0), (90.0, 88.0), (120.0, 119.5)]
    found["workloads"]["flask"]["shares"] = [
        {"served_us": served, "alone_us": without} for served, without in pairs
    ]
    outcome = targets.above_alone("flask", 1.5).look(found)
    assert outcome is not None
    assert (outcome.figure, outcome.met) == (1.0, True)
    assert "0.5..2.0" in outcome.text


def test_a_workload_for_more_workers_has_a_name_of_its_own() -> None:
    plain = workloads.catalogue()[0]
    two = plain.with_workers(2)
    assert (two.name, two.workers) == ("plain@2", 2)
    assert plain.with_workers(1) is plain
    assert PLACE.server_cores(1) == "0"
    assert PLACE.server_cores(2) == PLACE.load_cores(2) == "0,1"


@pytest.mark.slow
def test_a_fixed_rate() -> None:
    peers.build_bare()
    bare = next(peer for peer in peers.catalogue() if peer.name == peers.BASELINE)
    plain = workloads.catalogue()[0]
    with measure.running(bare, "plain", "asgi", PLACE, pinned=False, workers=2) as (pid, port):
        load, begun = generators.paced(plain, port, 0.5, "", 1000, lambda: (time.monotonic(),))
        assert time.monotonic() - begun[0] >= 0.5  # without the warm-up
        assert len(measure.tree(pid)) == 2
    assert load.errors == 0
    assert 0 < load.p50_us <= load.p99_us <= load.p999_us


# ---- the gate ----


def test_the_gate_names_what_grew() -> None:
    base = {"plain": 1000.0, "echo": 2000.0}
    table, grown = gate.compare(base, {"plain": 1031.0, "echo": 2059.0}, 3)
    assert grown == ["plain"]
    assert "+3.1 %" in table
    assert table.count("**grew**") == 1
    assert gate.compare(base, {"plain": 900.0, "echo": 2000.0}, 3)[1] == []


def test_the_gate_counts_again_what_differs_either_way() -> None:
    base, now = {"plain": 1000.0, "echo": 2000.0}, {"plain": 985.0, "echo": 2010.0}
    assert gate.differs("plain", base, now, 1)
    assert not gate.differs("echo", base, now, 1)
    assert gate.differs("plain", base, {"plain": 1200.0}, 1)
    assert not gate.differs("plain", base, {"plain": 800.0}, 1), "no chance"


def test_the_base_is_given_or_what_its_file_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BENCH_BASE", raising=False)
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    monkeypatch.setattr(gate, "HERE", tmp_path)
    (tmp_path / "base-commit").write_text("0" * 40 + "\n")
    assert gate.base_commit(None) is None  # no repository
    person = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    assert gate.git("init", "-q") is not None
    assert gate.git(*person, "commit", "-q", "--allow-empty", "-m", "one") is not None
    assert gate.base_commit(None) is None  # not in this one
    commit = gate.git("rev-parse", "HEAD")
    assert commit
    (tmp_path / "base-commit").write_text(f"{commit}\nand why\n")
    assert gate.git(*person, "commit", "-q", "--allow-empty", "-m", "two") is not None
    assert gate.base_commit(None) == commit
    assert gate.base_commit("HEAD") == "HEAD"
    assert gate.base_commit("0" * 40) is None
    monkeypatch.setenv("BENCH_BASE", commit[:10])
    assert gate.base_commit(None) == commit[:10]


def test_a_base_that_is_not_in_the_clone(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    gate.main(["--base", "0" * 40])
    assert capsys.readouterr().out.startswith("skipped: the commit")
