"""Load once, with a whole application: the wiki search over a million titles.

A synthetic dump and its index are made by the wiki's own tools in a temporary folder; wiki.py
serves them with 1 context and with 4; each context gets 100,000 questions, half for pages and half
for prefixes, by several connections, every answer checked; then the proportional set size (PSS) of
the whole process tree is read.

extra     memory of another context = (PSS with 4 contexts - PSS with 1) / 3
data      PSS with 1 context - PSS with 1 context and an index of ten pages, before any question:
          one copy, that is, of which nothing has been un-shared yet
of data   extra / data
bare      extra of contexts with an index of ten pages: what a context costs anyway

Sides: the index with lists of offsets (`lists`), and the compact one, whose trie has numbers
instead of objects (`compact`); by processes, and by threads on a free-threaded Python, which runs
without its GIL; with freeze and without.
"""

import argparse
import html
import json
import os
import random
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from . import multi
from .generators import HOST, MeasureError
from .measure import Placement, read_response, running
from .memory import settle
from .multi import Side
from .peers import ROOT, Peer, SetupError, Target, ppserver_environ

APP = ROOT / "examples" / "wiki"
NEEDED = ("numpy", "datrie", "h11")
VARIANTS = {"lists": [], "compact": ["--compact"]}
FEW = 10  # pages of the index that stands for none
CONNECTIONS = 4  # to each context
AHEAD = 25  # questions on a connection before the first answer
REACH_BYTES = 16_384  # in which most often a page begins
TITLE = re.compile(rb"\n  <page>\n    <title>(.*)</title>\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = multi.parser("wiki", __doc__)
    parser.add_argument("--titles", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000, help="of each context")
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--backends", default="processes,threads")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--folder", type=Path, help="keep dump and index there, and use them again")
    parser.set_defaults(rounds=3)
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.titles, args.queries = 1, min(args.titles, 10_000), 1000
        args.contexts = min(args.contexts, 2)
    if args.contexts < 2:
        sys.exit("--contexts: expected 2 or more")
    if unknown := {*args.variants.split(",")} - {*VARIANTS}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    return args


# -- the wiki --------------------------------------------------------------------------------------


def environ_of(side_environ: dict[str, str]) -> dict[str, str]:
    """The application is found where it stands; NumPy's own threads would spin for a while.

    Nothing of the folder that servers run in is to be imported by mistake.
    """
    path = os.pathsep.join((str(ROOT), str(ROOT / "contrib")))
    more = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
    return side_environ | more


def make_wiki(python: multi.Python, folder: Path, pages: int, variants: list[str]) -> None:
    """The dump, and an index for each variant; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    dump = folder / "dump.xml"
    environ = ppserver_environ(ROOT) | environ_of({})
    if not dump.exists():
        print(f"making a dump of {pages:,} pages", file=sys.stderr)
        words = ("--pages", str(pages), "--seed", "1", "--output", str(dump), "--quiet")
        multi.text_of(python.path, "-m", "examples.wiki.make_dump", *words, env=environ)
    for variant in variants:
        if not (folder / variant / "index.json").exists():
            print(f"making its index: {variant}", file=sys.stderr)
            where = ("--output", str(folder / variant), *VARIANTS[variant])
            line = (python.path, "-m", "examples.wiki.build", str(dump), "--quiet", *where)
            multi.text_of(*line, env=environ)


def some_titles(dump: Path, count: int) -> Iterator[str]:
    """Titles of pages all over the dump, the same in every run."""
    rng = random.Random(1)
    size = dump.stat().st_size
    with dump.open("rb", buffering=0) as file:
        for _ in range(count):
            data = b""
            while (match := TITLE.search(data)) is None:
                data = os.pread(file.fileno(), REACH_BYTES, rng.randrange(size))
            yield html.unescape(match[1].decode())


# -- questions -------------------------------------------------------------------------------------


class Asker(threading.Thread):
    """A connection of its own, which asks for its titles and checks what comes."""

    def __init__(self, port: int, titles: list[str]) -> None:
        super().__init__()
        self.port = port
        self.titles = titles
        self.answered = 0
        self.problem = ""

    def run(self) -> None:
        try:
            with socket.create_connection((HOST, self.port), 60) as sock:
                with sock.makefile("rb") as stream:
                    for start in range(0, len(self.titles), AHEAD):
                        self.ask(sock, stream, self.titles[start : start + AHEAD])
        except (OSError, ValueError, MeasureError) as why:
            self.problem = str(why) or type(why).__name__

    def ask(self, sock: socket.socket, stream: BinaryIO, titles: list[str]) -> None:
        """The page of each title, and its place by prefix in every other question."""
        paths = []
        for title in titles:
            paths.append(f"/wiki/{quote(title, safe='')}")
            paths.append(f"/offsets/{quote(title.ljust(3), safe='')}?limit=10")
        sock.sendall("".join(f"GET {path} HTTP/1.1\r\nHost: b\r\n\r\n" for path in paths).encode())
        for title in titles:
            status, _, page = read_response(stream)
            found = TITLE.match(b"\n  " + page)
            if status != 200 or found is None or html.unescape(found[1].decode()) != title:
                raise MeasureError(f"a wrong page of {title!r}: {status}")
            status, _, answer = read_response(stream)
            rows = json.loads(answer) if status == 200 else []
            if len(title) >= 3 and rows[:1] != [[title, rows[0][1], rows[0][1] + len(page) - 1]]:
                raise MeasureError(f"a wrong place of {title!r}: {status}")
            self.answered += 2


def query(port: int, titles: list[str], connections: int) -> None:
    """Two questions for each title, by so many connections at once."""
    askers = [Asker(port, titles[number::connections]) for number in range(connections)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    problems = [asker.problem for asker in askers if asker.problem]
    if problems or sum(asker.answered for asker in askers) != 2 * len(titles):
        raise MeasureError(problems[0] if problems else "answers are missing")


# -- figures ---------------------------------------------------------------------------------------


def command(side: Side, target: Target, contexts: int) -> list[str]:
    line = [side.python.path, "-m", "ppserver", "wiki.py", "--app-dir", str(APP)]
    line += ["--bind", f"{HOST}:{target.port}", "--no-access-log"]
    line += ["--contexts", side.backend, "--cores", str(contexts)]
    if side.freeze is not None:
        line.append("--freeze" if side.freeze else "--no-freeze")
    return line if side.python.has_gil else [*line, "--gil", "off"]


def pss_mb(side: Side, contexts: int, index: Path, titles: list[str]) -> tuple[float, float]:
    """Memory of the whole tree before the questions, if it has one context, and after."""
    environ = environ_of(side.environ) | {"WIKI_INDEX": str(index)}
    peer = Peer(f"wiki-{side.slug}", lambda t: command(side, t, contexts), environ=environ)
    place = Placement(0, 1, side.python.path, ROOT)
    with running(peer, "wiki:Wiki", "asgi", place, pinned=False) as (pid, port):
        before = 0.0
        if contexts == 1:
            query(port, titles[:1], 1)  # so that the context is there
            before = settle(pid)["Pss"] / 1024
        query(port, titles, CONNECTIONS * contexts)
        return before, settle(pid)["Pss"] / 1024


def measure(side: Side, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    found = {}
    for name, queries in (("many", args.queries), ("few", args.queries // 10)):
        wiki = folder / name
        titles = list(some_titles(wiki / "dump.xml", queries * args.contexts // 2))
        for contexts in (1, args.contexts):
            asked = titles[: queries * contexts // 2]
            found[name, contexts] = pss_mb(side, contexts, wiki / side.label, asked)
    (loaded, one), (_, several) = found["many", 1], found["many", args.contexts]
    (bare, bare_one), (_, bare_several) = found["few", 1], found["few", args.contexts]
    extra = (several - one) / (args.contexts - 1)
    data = loaded - bare
    return {
        "one_mb": one,
        "many_mb": several,
        "data_mb": data,
        "extra_mb": extra,
        "of_data": extra / data if data > 0 else 0.0,
        "bare_mb": (bare_several - bare_one) / (args.contexts - 1),
    }


def sides(ready: list[multi.Python], args: argparse.Namespace) -> list[Side]:
    found = []
    for side in multi.sides(ready, args.backends.split(",")):
        choice = side.freeze
        if side.python.version < (3, 12):  # it has nothing to choose
            if choice is False:
                continue
            choice = None
        if side.backend == "processes" or not side.python.has_gil:
            for variant in args.variants.split(","):
                found.append(Side(side.python, side.backend, choice, variant))
    return found


def render(figures: dict[str, Any]) -> str:
    head = ["side", "data MB", "1 context, MB", f"{figures['contexts']}, MB"]
    head += ["extra MB", "of data, %", "bare MB"]
    rows = []
    for side, samples in figures["sides"].items():
        row = [side]
        for key in ("data_mb", "one_mb", "many_mb", "extra_mb"):
            row.append(multi.middle([s[key] for s in samples], 1))
        row.append(multi.middle([100 * s["of_data"] for s in samples], 1))
        rows.append([*row, multi.middle([s["bare_mb"] for s in samples], 1)])
    title = (
        f"### The wiki search: {figures['titles']:,} titles, {figures['queries']:,} questions of "
        f"each of {figures['contexts']} contexts"
    )
    return multi.header(figures) + f"\n\n{title}\n\n" + multi.table(head, rows) + "\n"


def run(args: argparse.Namespace, able: list[multi.Python], folder: Path) -> dict[str, Any]:
    variants = args.variants.split(",")
    for name, pages in (("many", args.titles), ("few", FEW)):
        make_wiki(able[0], folder / name, pages, variants)
    figures = multi.new_run("wiki", args, able)
    figures |= {"titles": args.titles, "queries": args.queries, "contexts": args.contexts}
    figures["sides"] = {}
    for number in range(args.rounds):
        for side in sides(able, args):
            if side.name in figures["refused"]:
                continue
            try:
                sample = measure(side, folder, args)
            except (MeasureError, OSError) as why:
                multi.refuse(figures, side.name, why)
                continue
            multi.keep(figures, number + 1, side.name, sample)
        multi.save(figures, args)
    return figures


def has_needed(python: multi.Python) -> bool:
    probe = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, {})))"
    try:
        multi.text_of(python.path, "-c", probe.format(NEEDED))
    except SetupError:
        return False
    return True


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    if args.render:
        print(render(json.loads(args.render.read_text())), end="")
        return
    able = [python for python in multi.pythons(args) if has_needed(python)]
    if not able:
        sys.exit(f"this needs {', '.join(NEEDED)} on one of the interpreters")
    with tempfile.TemporaryDirectory(prefix="wiki-") as temporary:
        figures = run(args, able, args.folder or Path(temporary))
    print(render(figures), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
