"""Scaling from one context to two, with the load accounted for.

Two ways, interleaved, each round with fresh processes:

inside    `inside.py` calls the application in one and in two contexts of one harness, without
          sockets: what Python, the data and reference counts make of a second core.
server    the whole server under `storm`, with one context on one core and with two on two, the
          generator on the very same cores with as many threads: its processor time is on both sides
          of the ratio, so linear scaling is 2.00.

ratio     requests per second with two contexts over those with one
CPU us    processor time of the server's whole tree (or of the contexts) per request, at 1 and 2
capacity  requests per (server CPU seconds / 2) with two contexts, over requests per server CPU
          second with one: what the second core would bring if the server had both cores for
          itself. It sees contention that burns processor time (cache lines, spinning), not
          waiting (a GIL); the ratio sees both, and what else the machine does.
cores     near or far: whether a cache line took less or more than 100 ns from one core to the other
          at the time, which a hypervisor changes under way; "moved" if it did during the run
load us   processor time of the generator per request, with two contexts
not had   share of both cores' time that something else took; inside, also what contexts waited
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from . import generators, multi, peers
from .generators import MeasureError
from .measure import core_busy_s, raise_fd_limit, tree_cpu_ns
from .multi import HERE, ROOT, Side

HANDLERS = {
    "cpu": ("CPU-bound, 200 µs of Python", ""),
    "hello": ("hello world", ""),
    "starlette": ("Starlette JSON", "starlette"),
    "trie": ("one shared datrie.Trie, a query a request", "trie"),
    "array": ("one shared NumPy array, a query a request", "offsets"),
    "view": ("the same array, a view for each context", "offsets"),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = multi.parser("scaling", __doc__)
    parser.add_argument("--handlers", default=",".join(HANDLERS))
    parser.add_argument("--backends", default=",".join(multi.BACKENDS))
    parser.add_argument("--ways", default="inside,server")
    parser.add_argument("--seconds", type=float, default=3, help="of each measured stretch")
    parser.add_argument("--connections", type=int, default=64, help="for each context")
    parser.add_argument("--titles", type=int, default=100_000, help="of the shared data")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="inside: with real-time priority, which keeps others from the cores (needs root)",
    )
    parser.add_argument("--cores", default="0,1", help="the two cores (default: %(default)s)")
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.seconds = 1, min(args.seconds, 0.3)
    if unknown := set(args.handlers.split(",")) - set(HANDLERS):
        sys.exit(f"unknown handlers: {', '.join(sorted(unknown))}; there are {', '.join(HANDLERS)}")
    return args


def lacking(side: Side, needs: str) -> str:
    """Why a side cannot run a handler, known beforehand; empty if it can."""
    library = {"trie": "datrie", "offsets": "numpy", "starlette": "starlette"}.get(needs, "")
    if library in side.python.lacks:
        return f"{library} could not be installed for {side.python.tag}"
    return ""


def measure_inside(side: Side, handler: str, count: int, args: argparse.Namespace) -> Any:
    job = {
        "backend": side.backend,
        "handler": "/" + handler,
        "contexts": count,
        "seconds": args.seconds,
        "freeze": bool(side.freeze),
    }
    environ = peers.ppserver_environ(ROOT) | side.variables()
    environ |= multi.app_environ(HANDLERS[handler][1], args.titles)
    line = ["chrt", "-f", "1"] if args.realtime else []
    line += ["taskset", "-c", args.cores]
    done = subprocess.run(
        [*line, side.python.path, str(HERE / "inside.py"), json.dumps(job)],
        capture_output=True,
        text=True,
        env=environ,
        cwd=HERE,
        timeout=120 + args.seconds,
    )
    if done.returncode != 0 or not done.stdout:
        raise MeasureError(done.stderr.strip().splitlines()[-1] if done.stderr else "it crashed")
    result = json.loads(done.stdout)
    if side.backend == "threads" and not side.python.has_gil and result["gil"]:
        raise MeasureError("a module has switched the GIL on")
    requests = sum(one["requests"] for one in result["contexts"])
    return {
        "rate": sum(one["requests"] / one["wall_ns"] * 1e9 for one in result["contexts"]),
        "cpu_us": sum(one["cpu_ns"] for one in result["contexts"]) / 1000 / requests,
        "load_cpu_us": 0,
        # What the contexts did not get: taken by others, or spent waiting for each other.
        "foreign": 1 - statistics.mean(o["cpu_ns"] / o["wall_ns"] for o in result["contexts"]),
        "errors": 0,
    }


def busy_s(cores: str) -> float:
    return sum(core_busy_s(int(core)) for core in cores.split(","))


def measure_server(side: Side, handler: str, count: int, args: argparse.Namespace) -> Any:
    cores = args.cores if count == 2 else args.cores.split(",")[0]
    environ = multi.app_environ(HANDLERS[handler][1], args.titles)
    with multi.serving(side, count, environ, cores=cores) as (pid, port):
        figures, begin, end = generators.storm(
            port,
            "/" + handler,
            cores,
            lambda: (tree_cpu_ns(pid), busy_s(args.cores)),
            threads=count,
            connections=args.connections * count,
            seconds=args.seconds,
            warmup=min(1.0, args.seconds),
        )
    cpu_s, load_us = (end[0] - begin[0]) / 1e9, figures["cpu_us"] / max(figures["seen"], 1)
    if cpu_s <= 0:
        raise MeasureError("this process got no core until the stretch was over")
    own = cpu_s + load_us * figures["requests"] / 1e6
    return {
        "rate": figures["rate"],
        "cpu_us": cpu_s * 1e6 / figures["requests"],
        "load_cpu_us": load_us,
        "foreign": max(0.0, end[1] - begin[1] - own) / args.seconds / 2,
        "errors": generators.errors_of(figures),
    }


def measure_round(figures: dict[str, Any], chosen: list[Side], args: argparse.Namespace) -> None:
    ways = {"inside": measure_inside, "server": measure_server}
    for handler in args.handlers.split(","):
        for way in args.ways.split(","):
            for side in chosen:
                name = f"{handler}, {way}, {side.name}"
                if name in figures["refused"]:
                    continue
                try:
                    if why := lacking(side, HANDLERS[handler][1]):
                        raise MeasureError(why)
                    pair = {"1": ways[way](side, handler, 1, args)}
                    before = multi.apart_ns(args.cores)
                    pair["2"] = ways[way](side, handler, 2, args)
                    pair["apart_ns"] = [before, multi.apart_ns(args.cores)]
                except (MeasureError, OSError, subprocess.TimeoutExpired) as why:
                    multi.refuse(figures, name, why)
                    continue
                figures["pairs"].setdefault(handler, {}).setdefault(way, {}).setdefault(
                    side.name, []
                ).append(pair)
                print(
                    f"{name}: ratio {pair['2']['rate'] / pair['1']['rate']:.2f}, "
                    f"CPU {pair['1']['cpu_us']:.2f} and {pair['2']['cpu_us']:.2f} µs",
                    file=sys.stderr,
                )


def capacity(pair: dict[str, Any]) -> float:
    return float(2 * pair["1"]["cpu_us"] / pair["2"]["cpu_us"])


def placed(pair: dict[str, Any]) -> str:
    """Where the two cores were, by what a cache line took before and after."""
    far = [one > multi.FAR_NS for one in pair["apart_ns"]]
    return "moved" if far[0] != far[1] else "far" if far[0] else "near"


def render(figures: dict[str, Any]) -> str:
    parts = [multi.header(figures)]
    head = ["side", "cores", "ratio 1→2", "capacity 1→2", "CPU µs, 1", "CPU µs, 2"]
    head += ["requests/s, 1", "2", "load µs, 2", "not had, 2"]
    for handler, ways in figures["pairs"].items():
        for way, by_side in ways.items():
            rows = []
            for side, pairs in by_side.items():
                for cores in ("near", "far", "moved"):
                    if chosen := [pair for pair in pairs if placed(pair) == cores]:
                        rows.append([side, cores, *row(chosen)])
            parts.append(f"### {HANDLERS[handler][0]}: {way}\n\n" + multi.table(head, rows))
    return "\n\n".join(parts) + "\n"


def row(pairs: list[dict[str, Any]]) -> list[str]:
    errors = sum(pair[n]["errors"] for pair in pairs for n in ("1", "2"))
    rates = [[pair[n]["rate"] for pair in pairs] for n in ("1", "2")]
    ratio = multi.middle([pair["2"]["rate"] / pair["1"]["rate"] for pair in pairs])
    return [
        ratio + (f" ({errors} errors)" if errors else ""),
        multi.middle([capacity(pair) for pair in pairs]),
        multi.middle([pair["1"]["cpu_us"] for pair in pairs]),
        multi.middle([pair["2"]["cpu_us"] for pair in pairs]),
        *(f"{statistics.median(rate):,.0f}" for rate in rates),
        multi.middle([pair["2"]["load_cpu_us"] for pair in pairs]),
        f"{statistics.median(pair['2']['foreign'] for pair in pairs):.1%}",
    ]


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    if args.render:
        print(render(json.loads(args.render.read_text())), end="")
        return
    raise_fd_limit()
    ready = multi.pythons(args)
    if any(HANDLERS[name][1] in ("trie", "offsets") for name in args.handlers.split(",")):
        maker = next((p for p in ready if not {"datrie", "numpy"} & set(p.lacks)), None)
        if maker is None:
            sys.exit("the shared data needs datrie and numpy on one of the interpreters")
        multi.make_data(maker, args.titles)
    chosen = [
        side
        for side in multi.sides(ready, args.backends.split(","))
        if side.backend != "threads" or not side.python.has_gil or args.backends == "threads"
    ]
    figures = multi.new_run("scaling", args, ready)
    figures |= {"seconds": args.seconds, "pairs": {}}
    for _ in range(args.rounds):
        measure_round(figures, chosen, args)
        multi.save(figures, args)
    print(render(figures), end="")
