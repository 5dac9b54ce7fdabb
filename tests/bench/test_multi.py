"""The benchmarks of many contexts: the load generator counts right, each tool runs in small."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contrib.bench import balance, contexts, generators, measure, multi, once, peers, scaling
from contrib.bench.generators import MeasureError
from contrib.bench.measure import Placement
from contrib.bench.multi import Python, Side

pytestmark = [
    pytest.mark.timeout(240),  # the first compiles the programs and installs what is measured
    pytest.mark.skipif(
        shutil.which("cc") is None or "TEST_SANITIZER" in os.environ,
        reason="the generator is a C program, and measures an ordinary build",
    ),
]


@pytest.fixture
def floor() -> Iterator[int]:
    """The port of the floor, whose answers' bodies begin with `Hello,`."""
    peers.build_bare()
    bare = next(peer for peer in peers.catalogue() if peer.name == peers.BASELINE)
    place = Placement(0, 1, sys.executable, peers.ROOT)
    with measure.running(bare, "plain", "asgi", place, pinned=False) as (_, port):
        yield port


@pytest.mark.slow
def test_keep_alive_connections_ask_again(floor: int) -> None:
    figures, _, _ = generators.storm(floor, "/plain", connections=9, threads=2, seconds=0.3)
    assert figures["names"]["Hello,"]["connections"] == 9
    assert figures["names"]["Hello,"]["requests"] == figures["requests"] > 9
    assert figures["opened"] == 9
    assert generators.errors_of(figures) == 0
    assert figures["p50_us"] <= figures["p90_us"] <= figures["p99_us"] <= figures["max_us"]


@pytest.mark.slow
def test_a_rate_is_kept(floor: int) -> None:
    looks: list[float] = []
    figures, begin, end = generators.storm(
        floor,
        "/plain",
        at=lambda: looks.append(time.monotonic()) or len(looks),
        connections=4,
        rate=1000,
        seconds=0.3,
        warmup=0.1,
    )
    assert (begin, end) == (1, 2)
    # As many as are due, however slow the machine is, except for those still on their way.
    assert 395 <= figures["seen"] + figures["unfinished"] - 4 <= 402
    assert 0 < figures["requests"] <= figures["seen"]


@pytest.mark.slow
def test_held_connections_ask_once(floor: int) -> None:
    figures, _, _ = generators.storm(floor, "/plain", connections=7, seconds=0.5, hold=True)
    assert figures["seen"] == 7
    assert figures["names"]["Hello,"]["connections"] == 7


@pytest.mark.slow
def test_a_connection_for_each_request(floor: int) -> None:
    figures, _, _ = generators.storm(
        floor, "/plain", connections=50, seconds=0.3, open=True, rate=500
    )
    assert generators.errors_of(figures) == 0
    assert figures["seen"] > 0
    assert figures["opened"] - 50 <= figures["seen"] <= figures["opened"] <= 151


@pytest.mark.slow
def test_a_server_that_answers_wrong_is_seen(floor: int) -> None:
    with pytest.raises(MeasureError, match="no request was answered"):
        generators.storm(floor, "/absent", connections=1, seconds=0.1)


@pytest.mark.parametrize(
    "words",
    [[], ["0", "/"], ["80", "/", "--seconds", "x"], ["80", "/", "--open"], ["80", "/", "-v"]],
)
def test_the_generator_refuses_nonsense(words: list[str]) -> None:
    program = generators.compile_c("storm")
    done = subprocess.run([program, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr


def test_evenness() -> None:
    assert multi.uneven([5, 5], 2) == 1
    assert multi.uneven([8], 4) == 4  # three contexts that have nothing are not in the list
    assert multi.uneven([3, 1, 0, 0], 4) == 3
    assert multi.uneven([0, 0], 2) == 2


def python_of(tag: str, has_gil: bool, flags: str = "--no-freeze") -> Python:
    major, _, minor = tag.rstrip("t").partition(".")
    return Python("python", tag, has_gil, (int(major), int(minor)), flags, "")


def test_sides_that_make_sense() -> None:
    ready = [python_of("3.11", True, ""), python_of("3.13", True), python_of("3.13t", False)]
    names = [side.name for side in multi.sides(ready, list(multi.BACKENDS))]
    assert "3.11 processes" in names  # no --freeze there
    assert "3.13 processes, freeze" in names
    assert "3.13t threads, no freeze" in names
    assert "3.13 interpreters" in names
    assert not {"3.11 interpreters", "3.13t interpreters"} & set(names)
    assert ready[1].knows("--no-freeze")
    assert not ready[1].knows("--no-free")


def test_variants_are_environment_and_arguments() -> None:
    args = balance.parse(["--variant", "a=", "--variant", "b=PPX=1 Y2=z --flag 'two words' K=v"])
    first, second = balance.variant_sides([python_of("3.13", True)], args)
    assert first.name == "3.13 processes a"
    assert (first.extra, first.environ) == ((), {})
    assert second.environ == {"PPX": "1", "Y2": "z"}
    assert second.extra == ("--flag", "two words", "K=v")


def test_a_side_has_a_command_line() -> None:
    side = Side(python_of("3.13t", False), "threads", False, extra=("--more",))
    target = peers.Target("m:a", "asgi", 1234, "python", Path("bin"))
    line = side.command(target, 3, lifespan=True)
    text = " ".join(line)
    assert "--contexts threads --loop asyncio --cores 3 --no-freeze --more" in text
    assert "--port 1234" in text
    assert side.variables() == {"PYTHON_GIL": "0"}
    assert Side(python_of("3.13", True), "threads").variables() == {}


def run_tool(tool: str, tmp_path: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """What a tool printed, and its raw figures."""
    target = tmp_path / "figures.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "contrib.bench",
            tool,
            "--quick",
            "--as-is",
            "--json",
            target,
            *words,
        ],
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
    )
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "contrib.bench", tool, "--render", target],
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
    )
    assert again.stdout == done.stdout
    figures: dict[str, Any] = json.loads(target.read_text())
    assert figures["commit"] in done.stdout
    return done.stdout, figures


def run_until_measured(tool: str, tmp_path: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """The same, with every side measured: stretches this short may meet a machine that stands
    still, and then the tool refuses the figure, as it should."""
    for _ in range(3):
        text, figures = run_tool(tool, tmp_path, *words)
        if not figures["refused"]:
            break
    assert figures["refused"] == {}
    return text, figures


@pytest.mark.parametrize(
    ("apart", "where"), [((38, 40), "near"), ((210, 209), "far"), ((38, 209), "moved")]
)
def test_where_the_cores_were(apart: tuple[float, float], where: str) -> None:
    assert scaling.placed({"apart_ns": list(apart)}) == where


@pytest.mark.slow
@pytest.mark.parametrize("way", ["inside", "server"])
def test_scaling_in_small(way: str, tmp_path: Path) -> None:
    words = ("--handlers", "hello", "--backends", "processes", "--ways", way, "--seconds", "0.5")
    text, figures = run_until_measured("scaling", tmp_path, *words)
    by_side = figures["pairs"]["hello"][way]
    for pairs in by_side.values():
        (pair,) = pairs
        assert pair["1"]["rate"] > 0
        assert pair["2"]["cpu_us"] > 0
        assert f"{scaling.capacity(pair):.2f}" in text


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["threads", "processes", "interpreters"])
def test_the_harness_drives_contexts_at_once(backend: str) -> None:
    job = {"backend": backend, "handler": "/cpu", "contexts": 2, "seconds": 0.02, "freeze": False}
    done = subprocess.run(
        [sys.executable, str(peers.HERE / "inside.py"), json.dumps(job)],
        capture_output=True,
        text=True,
        cwd=peers.HERE,
    )
    if backend == "interpreters" and sys.version_info < (3, 13):
        assert "3.13 has" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)["contexts"]
    assert len(counted) == 2
    assert all(one["requests"] > 0 and one["wall_ns"] >= 20_000_000 for one in counted)


@pytest.mark.slow
def test_contexts_in_small(tmp_path: Path) -> None:
    words = ("--frameworks", "nothing", "--backends", "processes")
    _, figures = run_tool("contexts", tmp_path, *words)
    for samples in figures["frameworks"]["nothing"].values():
        (sample,) = samples
        assert sample["one_mb"] > 1
        assert sample["one_ms"] > 0
        assert sample["processes"] == sample["one_processes"] + 1


def test_lines_that_do_not_come_are_reported() -> None:
    line = [sys.executable, "-c", "print('one'); print('two')"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        lines = contexts.Lines(server)
        assert lines.wait("one", 10) <= lines.wait("two", 10)
        with pytest.raises(MeasureError, match="ended at start: one two"):
            lines.wait("three", 10)
        lines.close()


@pytest.mark.slow
def test_balance_in_small(tmp_path: Path) -> None:
    words = ("--contexts", "2", "--connections", "8", "--work", "5", "--seconds", "0.5")
    _, figures = run_until_measured("balance", tmp_path, *words, "--storm", "100")
    idle = figures["loads"]["2 contexts, 8 connections, idle"]
    for samples in idle.values():
        assert sum(samples[0]["by_context"]) == 8
        assert 1 <= samples[0]["connections"] <= 2
    assert len(figures["loads"]) == 4
    skewed = figures["loads"]["2 contexts, 8 connections, 5 µs skewed"]
    assert all(samples[0]["errors"] == 0 for samples in skewed.values())


@pytest.mark.slow
def test_once_in_small(tmp_path: Path) -> None:
    for name in ("datrie", "numpy"):
        pytest.importorskip(name)
    words = ("--titles", "5000", "--queries", "200", "--backends", "processes")
    _, figures = run_until_measured("once", tmp_path, *words)
    assert all(s[0]["many_mb"] > s[0]["one_mb"] > 1 for s in figures["sides"].values())


def test_what_another_context_costs_is_a_share_of_the_data() -> None:
    sample = {"one_mb": 150.0, "many_mb": 162.0, "data_mb": 100.0, "extra_mb": 4.0}
    sample |= {"bare_mb": 3.0, "of_data": 0.01}
    run = {
        "tool": "once",
        "date": "today",
        "commit": "abc",
        "machine": {"cpu": "c", "cores": 2, "system": "s", "load": 0.0, "compiler": "cc"},
        "pythons": {},
        "rounds": 1,
        "refused": {"x": "it would not"},
        "titles": 5000,
        "queries": 10,
        "contexts": 4,
        "sides": {"3.13 processes, freeze": [sample, sample | {"of_data": 0.03}]},
    }
    text = once.render(run)
    assert "refused, x: it would not" in text
    assert "2.0 (1.0..3.0)" in text
