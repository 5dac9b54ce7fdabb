"""Load once: what another context costs when all share one trie and one array.

A trie of a million titles and an array of as many offsets are loaded, then every context answers
100,000 queries of both, each answer checked; then the proportional set size (PSS) of the whole
process tree is read.

extra     memory of another context = (PSS with 4 contexts - PSS with 1) / 3
bare      the same without the data, only its libraries imported: what a context costs anyway
data      PSS with 1 context that loads for itself - PSS with 1 context without the data; one copy,
          that is, whereas a context that shares it may have un-shared a part already
of data   (extra - bare) / data: the share of the data that another context makes its own

Sides: shared data with freeze and without, by processes and by threads, and, as what they are to
be compared with, data that every context loads for itself in its lifespan.
"""

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

from . import multi
from .generators import MeasureError
from .memory import settle
from .multi import Side

BATCH = 100  # queries a request


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = multi.parser("once", __doc__)
    parser.add_argument("--titles", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000, help="by each context")
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--backends", default=",".join(multi.BACKENDS))
    parser.set_defaults(rounds=3)
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.titles, args.queries = 1, min(args.titles, 20_000), 1000
        args.contexts = min(args.contexts, 2)
    if args.contexts < 2:
        sys.exit("--contexts: expected 2 or more")
    return args


def shared_sides(ready: list[multi.Python], wanted: list[str]) -> list[Side]:
    # Loading each comes first: it tells how large the data is.
    found = [Side(python, "processes", label="loading each") for python in ready]
    for side in multi.sides(ready, wanted):
        if side.backend != "threads" or not side.python.has_gil:
            found.append(side)
    return found


def query(port: int, contexts: int, queries: int) -> None:
    """Has every context answer `queries` queries."""
    by_name = multi.connect_to_each(port, contexts)
    try:
        for name, sock in by_name.items():
            for _ in range(queries // BATCH):
                _, body = multi.ask(port, f"/queries?{BATCH}", sock)
                if body.decode().strip() != name:
                    raise MeasureError("the connection has gone to another context")
    finally:
        for sock in by_name.values():
            sock.close()


def pss_mb(side: Side, contexts: int, data: bool, args: argparse.Namespace) -> float:
    """Memory of the tree after the queries; without the data, after as many small requests."""
    needs = "trie,offsets" if data else "libraries"
    load = "import"
    each = side.label == "loading each"
    if each:
        load = "lifespan"
    elif side.python.knows("--on-start") and side.backend != "interpreters":
        load = "hook"
        side = replace(side, extra=(*side.extra, "--on-start", "multi_apps:load"))
    environ = multi.app_environ(needs, args.titles, load)
    with multi.serving(side, contexts, environ, lifespan=each) as (pid, port):
        if data:
            query(port, contexts, args.queries)
        return settle(pid)["Pss"] / 1024


def measure(side: Side, data: float | None, args: argparse.Namespace) -> dict[str, float]:
    """`data`: its size, if it is known."""
    one, many, bare_one, bare_many = (
        pss_mb(side, contexts, with_data, args)
        for with_data in (True, False)
        for contexts in (1, args.contexts)
    )
    data = one - bare_one if data is None else data
    extra = (many - one) / (args.contexts - 1)
    bare = (bare_many - bare_one) / (args.contexts - 1)
    return {
        "one_mb": one,
        "many_mb": many,
        "data_mb": data,
        "extra_mb": extra,
        "bare_mb": bare,
        "of_data": (extra - bare) / data if data > 0 else 0.0,
    }


def render(figures: dict[str, Any]) -> str:
    head = ["side", "data MB", "1 context, MB", f"{figures['contexts']}, MB"]
    head += ["extra MB", "bare MB", "of data, %"]
    rows = []
    for side, samples in figures["sides"].items():
        columns = ("data_mb", "one_mb", "many_mb", "extra_mb", "bare_mb")
        cells = [multi.middle([s[key] for s in samples], 1) for key in columns]
        rows.append([side, *cells, multi.middle([100 * s["of_data"] for s in samples], 1)])
    title = (
        f"### Load once: {figures['titles']:,} titles, {figures['queries']:,} queries of each of "
        f"{figures['contexts']} contexts"
    )
    return multi.header(figures) + f"\n\n{title}\n\n" + multi.table(head, rows) + "\n"


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    if args.render:
        print(render(json.loads(args.render.read_text())), end="")
        return
    ready = multi.pythons(args)
    able = [python for python in ready if not {"datrie", "numpy"} & set(python.lacks)]
    if not able:
        sys.exit("this needs datrie and numpy on one of the interpreters")
    multi.make_data(able[0], args.titles)
    figures = multi.new_run("once", args, ready)
    figures |= {"titles": args.titles, "queries": args.queries, "contexts": args.contexts}
    figures["sides"] = {}
    sizes: dict[str, float] = {}
    for number in range(args.rounds):
        for side in shared_sides(able, args.backends.split(",")):
            if side.name in figures["refused"]:
                continue
            try:
                loads_itself = side.label == "loading each"
                known = None if loads_itself else sizes.get(side.python.tag)
                sample = measure(side, known, args)
                if loads_itself:
                    sizes[side.python.tag] = sample["data_mb"]
            except (MeasureError, OSError) as why:
                multi.refuse(figures, side.name, why)
                continue
            multi.keep(figures, number + 1, side.name, sample)
        multi.save(figures, args)
    print(render(figures), end="")
