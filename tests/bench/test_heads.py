"""The parser's own benchmark: figures for every head, no figure for a head that is not one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from contrib.bench import heads, peers
from contrib.bench.generators import MeasureError

SMALL = ["--rounds", "3", "--times", "200", "--core", ""]
GOOD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

slow = pytest.mark.slow
compiled = pytest.mark.skipif(
    shutil.which("cc") is None or "TEST_SANITIZER" in os.environ,
    reason="it is a C program, and measures an ordinary build",
)
counting = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


@pytest.fixture(scope="module")
def program() -> Path:
    """Without llhttp, in a folder of its own."""
    objects = peers.BUILD / "heads-test" / "build"
    libraries = [f"ppserver/native/libpp_{name}.a" for name in ("proto", "base")]
    peers.build_release(peers.ROOT, objects, *libraries, options=["-Dextension=false"])
    return heads.compile_heads(peers.ROOT, objects)


def test_the_heads_have_as_many_fields_as_they_say() -> None:
    found = heads.heads()
    assert list(found) == [4, 14, 40]
    for fields, head in found.items():
        lines = head.decode("ascii").split("\r\n")
        assert lines[-2:] == ["", ""]
        names = [line.partition(": ")[0].lower() for line in lines[1:-2]]
        assert len(set(names)) == len(names) == fields


@slow
@compiled
def test_the_tool_prints_figures_for_every_head(capsys: pytest.CaptureFixture[str]) -> None:
    heads.main(SMALL)
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if " fields, " in line]
    ours = [row for row in cells if row[2] == heads.OURS]
    assert [row[1].partition(",")[0] for row in ours] == ["4 fields", "14 fields", "40 fields"]
    for _, _, _, ns, spread, speed, counted, _ in cells:
        low, high = map(int, spread.split(".."))
        assert 0 < low <= int(ns) <= high
        assert float(speed) > 0
        assert counted == "?" or int(counted.replace(",", "")) > 500


@slow
@compiled
def test_without_llhttp_the_tool_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "find_llhttp", lambda folder: [])
    heads.main(SMALL)
    text = capsys.readouterr().out
    assert text.count(f"| {heads.OURS} |") == 3
    assert f"| {heads.THEIRS} |" not in text.replace("  ", "")
    assert "llhttp is not installed" in text


@slow
@compiled
@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", "malformed header field"),
        (GOOD[:-2], "does not end"),
        (GOOD + GOOD, "more than a head"),
        (b"", "does not end"),
        (GOOD[:-2] + b"A: " + b"a" * 16384 + b"\r\n\r\n", "up to 16384 bytes"),
    ],
)
def test_a_bad_head_is_refused(program: Path, head: bytes, why: str) -> None:
    with pytest.raises(MeasureError, match=why):
        heads.run_heads(program, head, [heads.OURS], 1, 1)


@slow
@compiled
@pytest.mark.parametrize(
    ("parsers", "rounds", "times", "why"),
    [
        ([heads.OURS], 0, 1, "expected 1 to"),
        ([heads.OURS], 1, 0, "expected 1 to"),
        ([], 1, 1, "usage"),
        (["other"], 1, 1, "no such parser"),
    ],
)
def test_a_bad_command_line_is_refused(
    program: Path, parsers: list[str], rounds: int, times: int, why: str
) -> None:
    with pytest.raises(MeasureError, match=why):
        heads.run_heads(program, GOOD, parsers, rounds, times)


@slow
@compiled
def test_parsers_take_turns(program: Path) -> None:
    theirs = heads.find_llhttp(program.parent.parent / "llhttp")
    if not theirs:
        pytest.skip("llhttp is not installed")
    both = heads.compile_heads(peers.ROOT, program.parent, theirs)
    first, *lines = heads.run_heads(both, GOOD, [heads.OURS, heads.THEIRS], 3, 100)
    assert first[1:] == [str(len(GOOD)), "1"]
    assert [name for name, _ in lines] == [heads.OURS, heads.THEIRS] * 3
    assert all(int(ns) > 0 for _, ns in lines)
    with pytest.raises(MeasureError, match="HPE_"):
        heads.run_heads(both, b"GET / HTTP/1.1\r\nA\r\n\r\n", [heads.THEIRS], 1, 1)


@slow
@compiled
@counting
def test_instructions_are_the_same_each_time(program: Path) -> None:
    few, many = (heads.heads()[fields] for fields in (4, 14))
    once, again = (heads.instructions(program, many, heads.OURS, 100) for _ in range(2))
    assert abs(once - again) < 10
    assert heads.instructions(program, few, heads.OURS, 100) < once


@slow
@compiled
@counting
def test_the_gate_counts_a_tree_without_the_program(program: Path, tmp_path: Path) -> None:
    from contrib.bench import gate

    (tmp_path / "ppserver").mkdir()
    (tmp_path / "ppserver" / "native").symlink_to(peers.ROOT / "ppserver" / "native")
    found = gate.measure_heads(tmp_path, program.parent.parent)
    assert list(found) == [f"a head of {fields} fields" for fields in (4, 14, 40)]
    assert all(figure > 500 for figure in found.values())
