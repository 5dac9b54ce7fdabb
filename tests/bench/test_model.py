"""The model of more cores: its arithmetic, and that playing it gives the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from contrib.bench import chart, generators, model, peers

COSTS: dict[str, Any] = {
    "user_us": 2.0,
    "kernel_us": 4.0,
    "connection_us": 30.0,
    "request_bytes": 100,
    "response_bytes": 200,
    "add_ns": 5.0,
    "pass_ns": 50.0,
    "fd_shared_ns": 800.0,
    "accept_ns": 2000.0,
    "copy_2": 4e10,
    "requests_per_connection": 100,
    "copies": 6,
    "object_bytes": 2000,
    "bandwidth_max": 2e11,
    "far": 3.0,
    "far_at": 64,
    "hand_over_us": 10.0,
    "accept_queue_ns": 300.0,
    "board_lines": 2,
    "reads_at_once": 4,
}
ALONE: dict[str, Any] = {
    "title": "alone",
    "lines": [],
    "balance": False,
    "fd_table": False,
    "acceptor": False,
}
SHARED: dict[str, Any] = ALONE | {"lines": [{"name": "a line", "per_request": 10}]}
ACCEPTING: dict[str, Any] = ALONE | {"acceptor": True, "requests_per_connection": 1}


AT_LEAST_ZERO = ("disturbed", "machine", "hand_over_us")

needs_two = pytest.mark.skipif(
    shutil.which("cc") is None
    or len(os.sched_getaffinity(0)) < 2
    or "TEST_SANITIZER" in os.environ,
    reason="a C program for two processors",
)


def test_one_context_spends_what_was_measured() -> None:
    answer = model.solve(COSTS, ALONE, 1)
    assert answer.rate == pytest.approx(1e6 / (2 + 4 + 0.3))
    # What one acceptor does is taken out of what a context does.
    both = [model.solve(COSTS, ACCEPTING | {"acceptor": on}, 1).rate for on in (True, False)]
    assert both[0] == pytest.approx(both[1])


def test_nothing_shared_scales_until_the_memory_is_full() -> None:
    single = model.solve(COSTS, ALONE, 1)
    many = model.solve(COSTS, ALONE, 64)
    assert many.rate == pytest.approx(64 * single.rate, rel=0.01)
    assert model.verdict(many, single) == "the cores themselves"
    heavy = COSTS | {"object_bytes": 200_000}
    full = model.solve(heavy, ALONE, 64)
    assert full.rate == pytest.approx(2e11 / (200_000 + 6 * 300), rel=0.02)
    assert model.verdict(full, model.solve(heavy, ALONE, 1)) == "memory, saturated"


def test_a_shared_line_is_a_ceiling_that_sinks() -> None:
    single, many = model.solve(COSTS, SHARED, 1), model.solve(COSTS, SHARED, 64)
    assert many.rate == pytest.approx(1e9 / (10 * model.line_ns(COSTS, 64)), rel=0.01)
    assert model.solve(COSTS, SHARED, 128).rate < many.rate
    assert model.verdict(many, single) == "a line, saturated"
    assert max(many.busy.values()) == pytest.approx(1, abs=1e-3)


def test_choosing_the_least_loaded_costs_more_with_each_context() -> None:
    chosen = ALONE | {"balance": True}
    assert model.connection_us(COSTS, chosen, 1) == 30
    assert model.connection_us(COSTS, chosen, 2) == pytest.approx(30 + 1.5 * 0.05 + 10 / 2)
    assert model.connection_us(COSTS, chosen, 64) > 30 + 63 * 1.5 * 0.15
    few = model.connection_us(COSTS, chosen | {"choices": 8}, 64)
    assert few == pytest.approx(30 + 8 * 1.5 * 0.15 + 10 * 63 / 64)
    closing = chosen | {"requests_per_connection": 1}
    single, many = model.solve(COSTS, closing, 1), model.solve(COSTS, closing, 128)
    assert model.verdict(many, single).startswith("choosing and handing over")
    assert model.connection_us(COSTS, ALONE, 64) == 30


def test_a_lines_way_grows_linearly() -> None:
    assert model.line_ns(COSTS, 1) == 5
    assert model.line_ns(COSTS, 2) == pytest.approx((5 + 50) / 2)
    at_64 = model.line_ns(COSTS, 64)
    assert at_64 == pytest.approx(5 + (150 - 5) * 63 / 64)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [ALONE, SHARED, ACCEPTING])
@pytest.mark.parametrize("contexts", [1, 4, 24])
def test_played_and_solved_agree(scenario: dict[str, Any], contexts: int) -> None:
    solved = model.solve(COSTS, scenario, contexts).rate
    played = model.simulate(COSTS, scenario, contexts, requests=40_000, seed=7)
    assert played == pytest.approx(solved, rel=0.04)


def test_the_kept_input_is_whole_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "model.svg"
    kept = tmp_path / "model.json"
    done = subprocess.run(
        [sys.executable, "-m", "contrib.bench", "model", "--svg", picture, "--json", kept],
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
    )
    assert done.returncode == 0, done.stderr
    given = json.loads((peers.HERE / "model.json").read_text())
    assert json.loads(kept.read_text()) == given
    for scenario in given["scenarios"].values():
        assert f"### {scenario['title']}" in done.stdout
    in_docs = peers.ROOT / "docs" / "internals" / "scaling-model.svg"
    assert in_docs.read_text() == picture.read_text(), f"draw it again: --svg {in_docs.name}"
    root = ElementTree.parse(picture).getroot()
    drawn = root.findall("{http://www.w3.org/2000/svg}path[@stroke-width]")
    assert len(drawn) == 2 * (len(given["scenarios"]) + 1)  # a curve and its legend


def test_a_chart_has_its_points_where_they_belong() -> None:
    text = chart.draw("a < b", "x", "y", [chart.Curve("c", [(1, 1), (4, 0.5)])], line=False)
    assert "a &lt; b" in text
    root = ElementTree.fromstring(text)
    curve = root.findall("{http://www.w3.org/2000/svg}path[@stroke-width]")[0]
    first, last = curve.attrib["d"].lstrip("M").split("L")
    assert float(first.split()[0]) == chart.LEFT
    assert float(last.split()[0]) == chart.WIDTH - chart.RIGHT
    assert float(last.split()[1]) > float(first.split()[1])  # below
    with pytest.raises(ValueError, match="curves"):
        chart.draw("t", "x", "y", [])


@pytest.mark.slow
@needs_two
def test_costs_are_measured(tmp_path: Path) -> None:
    kept = tmp_path / "model.json"
    done = subprocess.run(
        [sys.executable, "-m", "contrib.bench", "model", "--measure", "--quick", "--json", kept],
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
    )
    assert done.returncode == 0, done.stderr
    costs = json.loads(kept.read_text())["measured"]
    given = json.loads((peers.HERE / "model.json").read_text())["measured"]
    assert set(costs) == set(given)
    assert all(v > 0 for name, v in costs.items() if name not in AT_LEAST_ZERO)
    assert costs["add_ns"] < costs["fd_ns"] < costs["fd_shared_ns"] * 4


@needs_two
def test_the_measuring_program_refuses_nonsense() -> None:
    done = subprocess.run([generators.compile_c("cacheline"), "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected 1 to" in done.stderr
