"""The wiki as a benchmark: it runs in small, and a wrong answer is no figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import serving

from contrib.bench import peers, wiki
from contrib.bench.generators import MeasureError
from contrib.bench.multi import Python, Side
from examples.wiki import make_dump

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        "TEST_SANITIZER" in os.environ, reason="it measures the memory of an ordinary build"
    ),
]

# Not imported here: on a free-threaded build datrie would turn the GIL on.
needs_libraries = pytest.mark.skipif(
    not all(map(serving.is_installed, wiki.NEEDED)), reason=f"needs {', '.join(wiki.NEEDED)}"
)


def python() -> Python:
    tag = f"{sys.version_info.major}.{sys.version_info.minor}"
    free = serving.FREE_THREADED
    flags = "--freeze --no-freeze"
    return Python(sys.executable, tag + "t" * free, not free, sys.version_info[:2], flags, "")


@needs_libraries
@pytest.mark.slow
def test_wiki_in_small(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    line = [sys.executable, "-m", "contrib.bench.wiki", "--quick", "--as-is", "--json", str(target)]
    # Only where threads are of use is there another back end than processes.
    backend = "threads" if serving.FREE_THREADED else "processes"
    line += ["--variants", "lists", "--backends", backend]
    done = subprocess.run(line, capture_output=True, text=True, cwd=peers.ROOT)
    assert done.returncode == 0, done.stderr
    figures = json.loads(target.read_text())
    assert figures["refused"] == {}
    assert (figures["titles"], figures["queries"], figures["contexts"]) == (10_000, 1000, 2)
    for (sample,) in figures["sides"].values():
        # Libraries count by how many processes of the machine have them mapped, so that the few
        # megabytes of so small an index are not to be told from that.
        assert sample["many_mb"] > sample["one_mb"] > 10
        assert sample["extra_mb"] == pytest.approx(sample["many_mb"] - sample["one_mb"])
    assert wiki.render(figures) == done.stdout


@needs_libraries
@pytest.mark.slow
def test_a_wrong_answer_is_no_figure(tmp_path: Path) -> None:
    wiki.make_wiki(python(), tmp_path / "few", wiki.FEW, ["compact"])
    side = Side(python(), "processes", None, "compact")
    with pytest.raises(MeasureError, match="a wrong page of 'No such page': 404"):
        wiki.pss_mb(side, 1, tmp_path / "few" / "compact", ["No such page"])


def test_titles_come_from_all_over_the_dump(tmp_path: Path) -> None:
    dump = tmp_path / "dump.xml"
    assert make_dump.main(["--pages", "300", "--output", str(dump), "--quiet"]) == 0
    text = dump.read_text()
    some = list(wiki.some_titles(dump, 500))
    assert some == list(wiki.some_titles(dump, 500))
    assert len(some) == 500
    assert len({*some}) > 100
    for title in some:
        assert f"<title>{make_dump.escape_title(title).decode()}</title>" in text


def test_sides() -> None:
    args = wiki.parse([])
    old = Python("p", "3.11", True, (3, 11), "--no-freeze", "")
    new = Python("p", "3.13", True, (3, 13), "--no-freeze", "")
    free = Python("p", "3.13t", False, (3, 13), "--no-freeze", "")
    assert [side.name for side in wiki.sides([old], args)] == [
        "3.11 processes lists",
        "3.11 processes compact",
    ]
    assert "3.13 processes, no freeze lists" in [side.name for side in wiki.sides([new], args)]
    names = [side.name for side in wiki.sides([free], args)]
    assert len(names) == 8
    assert "3.13t threads, freeze compact" in names
    target = peers.Target("wiki.py", "asgi", 1234, "p", Path("bin"))
    line = " ".join(wiki.command(Side(free, "threads", True, "lists"), target, 4))
    assert "--contexts threads --cores 4 --freeze --gil off" in line


def test_arguments() -> None:
    quick = wiki.parse(["--quick"])
    assert (quick.titles, quick.queries, quick.contexts) == (10_000, 1000, 2)
    for words in (["--contexts", "1"], ["--variants", "lists,other"]):
        with pytest.raises(SystemExit):
            wiki.parse(words)
