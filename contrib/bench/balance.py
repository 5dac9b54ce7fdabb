"""Even load: how connections and work spread over contexts, and what accepting costs.

Variants of the server take turns; each is a name with extra arguments and environment variables:

    --variant 'load=--balance load' --variant 'kernel=--balance kernel' (these two by default)
    --variant 'quiet=PYTHONWARNINGS=ignore --log-level warning'

For each number of contexts and of connections:

idle      every connection asks once and stays: connections by context
0, 30 us  keep-alive connections that are asked at a fixed pace in turn, with so much work in each
          request: connections, requests and busy time (the thread's own processor clock, from the
          kernel) by context, and latency from when a request was due. The pace is half of what the
          first variant answered without pause, the same for all variants.
skewed    the same with all requests on the connections of one context; the other contexts'
          connections stay open
storm     a connection for each request, opened at 10,000 a second (--storm): processor time of the
          server's tree for each, and latency

Evenness is the greatest over the mean of all contexts: 1.00 is even. Everything on loopback, the
generator on the same cores as the server; so latencies are comparable with each other only.
"""

import argparse
import json
import re
import shlex
import statistics
import sys
from typing import Any

from . import generators, multi
from .generators import MeasureError
from .measure import raise_fd_limit, tree_cpu_ns
from .multi import Side

# The kernel's choice is SO_REUSEPORT: the hash of a connection's addresses picks the socket.
DEFAULT_VARIANTS = ("load=--balance load", "kernel=--balance kernel")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = multi.parser("balance", __doc__)
    parser.add_argument("--variant", action="append", metavar="NAME=ARGUMENTS")
    parser.add_argument("--backends", default="processes")
    parser.add_argument("--contexts", default="2,8")
    parser.add_argument("--connections", default="64,1000")
    parser.add_argument("--work", default="0,30", help="µs of work in a request")
    parser.add_argument("--storm", type=float, default=10_000, help="connections/s; 0 for none")
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.seconds = 1, min(args.seconds, 0.5)
        args.storm = min(args.storm, 1000)
    return args


def variant_sides(ready: list[multi.Python], args: argparse.Namespace) -> list[Side]:
    """Every back end in every variant; a variant's words NAME=VALUE are environment."""
    found = []
    for python in ready:
        for backend in args.backends.split(","):
            for text in args.variant or DEFAULT_VARIANTS:
                label, _, rest = text.partition("=")
                words = shlex.split(rest)
                environ = {}
                while words and (match := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", words[0])):
                    environ[match[1]] = match[2]
                    del words[0]
                found.append(Side(python, backend, None, label, tuple(words), environ))
    return found


Snapshot = tuple[int, dict[str, int]]


def by_context(
    figures: dict[str, Any], names: list[str], begin: Snapshot, end: Snapshot
) -> dict[str, Any]:
    """What a load's figures say about its spread."""
    count = len(names)
    counted = figures["names"]
    empty = {"connections": 0, "requests": 0}
    connections = [counted.get(name, empty)["connections"] for name in names]
    requests = [counted.get(name, empty)["requests"] for name in names]
    busy = [end[1][name] - begin[1][name] for name in names]
    strangers = [name for name in counted if name not in names]
    return {
        "connections": multi.uneven(connections, count),
        "requests": multi.uneven(requests, count),
        "busy": multi.uneven(busy, count),
        "by_context": connections,
        "strangers": len(strangers),
        "cpu_us": (end[0] - begin[0]) / 1000 / max(1, figures["requests"]),
        "rate": figures["rate"],
        "p50_us": figures["p50_us"],
        "p99_us": figures["p99_us"],
        "p999_us": figures["p999_us"],
        "unfinished": figures["unfinished"],
        "errors": generators.errors_of(figures),
    }


def work_us(load: str) -> str:
    """Of `30`, `30 skewed`, `idle`, `storm`."""
    word = load.split()[0]
    return word if word.isdigit() else "0"


def measure_load(
    side: Side, contexts: int, load: str, args: argparse.Namespace, options: dict[str, Any]
) -> dict[str, Any]:
    """One load on a fresh server."""
    path = f"/work?{work_us(load)}"
    with multi.serving(side, contexts, multi.app_environ("", 1)) as (pid, port):
        names = multi.wait_for_contexts(port, contexts)

        def look() -> Snapshot:
            return tree_cpu_ns(pid), {name: multi.busy_ns(name) for name in names}

        figures, begin, end = generators.storm(port, path, at=look, **options)
    return by_context(figures, names, begin, end)


def options_of(load: str, connections: int, pace: float, args: argparse.Namespace) -> Any:
    options: dict[str, Any] = {"connections": connections, "seconds": args.seconds}
    options["warmup"] = min(1.0, args.seconds)
    if load == "idle":
        return options | {"hold": True}
    if load == "storm":
        return options | {"open": True, "rate": args.storm, "connections": 1024}
    if load.endswith(" skewed"):
        options["skew"] = True
    return options | ({"rate": pace} if pace else {})


def name_of(contexts: int, connections: int, load: str, args: argparse.Namespace) -> str:
    """A load's heading in the report."""
    if load == "storm":
        return f"{contexts} contexts, a connection a request, {args.storm:,.0f}/s"
    words = load.replace(work_us(load), work_us(load) + " µs", 1) if load != "idle" else load
    return f"{contexts} contexts, {connections} connections, {words}"


def measure_round(figures: dict[str, Any], chosen: list[Side], args: argparse.Namespace) -> None:
    works = [work for work in args.work.split(",") if work]
    for contexts in map(int, args.contexts.split(",")):
        loads = [("idle", n) for n in map(int, args.connections.split(","))]
        kinds = [kind for work in works for kind in (work, f"{work} skewed")]
        loads += [(kind, n) for _, n in list(loads) for kind in kinds]
        loads += [("storm", 0)] if args.storm else []
        for load, connections in loads:
            key = name_of(contexts, connections, load, args)
            pace = name_of(contexts, connections, work_us(load), args)
            if load.isdigit() and pace not in figures["paces"]:
                options = options_of(load, connections, 0, args)
                first = measure_load(chosen[0], contexts, load, args, options)
                figures["paces"][pace] = first["rate"] / 2
            options = options_of(load, connections, figures["paces"].get(pace, 0), args)
            for side in chosen:
                try:
                    sample = measure_load(side, contexts, load, args, options)
                except (MeasureError, OSError) as why:
                    multi.refuse(figures, f"{key}, {side.name}", why)
                    continue
                figures["loads"].setdefault(key, {}).setdefault(side.name, []).append(sample)
                print(
                    f"{key}: {side.name}: connections {sample['connections']:.2f}, busy "
                    f"{sample['busy']:.2f}, p99 {sample['p99_us']:.0f} µs, CPU "
                    f"{sample['cpu_us']:.1f} µs",
                    file=sys.stderr,
                )


def render(figures: dict[str, Any]) -> str:
    parts = [multi.header(figures)]
    head = ["side", "connections", "requests", "busy", "p50 µs", "p99 µs", "p99.9 µs"]
    head += ["CPU µs", "rate/s", "notes"]
    for load, by_side in figures["loads"].items():
        rows = []
        for side, samples in by_side.items():
            notes = [
                f"{sum(s[kind] for s in samples)} {kind}"
                for kind in ("errors", "unfinished", "strangers")
                if sum(s[kind] for s in samples)
            ]
            row = [side]
            row += [
                multi.middle([s[key] for s in samples]) if served(load, key) else ""
                for key in ("connections", "requests", "busy")
            ]
            row += [
                multi.middle([s[key] for s in samples], 0) if served(load, key) else ""
                for key in ("p50_us", "p99_us", "p999_us")
            ]
            cost = multi.middle([s["cpu_us"] for s in samples], 1)
            row.append(cost if served(load, "cpu_us") else "")
            row.append(f"{statistics.median(s['rate'] for s in samples):,.0f}")
            rows.append([*row, ", ".join(notes)])
        parts.append(f"### {load}\n\n" + multi.table(head, rows))
    return "\n\n".join(parts) + "\n"


def served(load: str, key: str) -> bool:
    """Whether a load says something about `key`: idle connections only about themselves."""
    if load.endswith("idle"):
        return key == "connections"
    return key != "connections" or "a connection a request" not in load


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    if args.render:
        print(render(json.loads(args.render.read_text())), end="")
        return
    raise_fd_limit()
    ready = multi.pythons(args)
    chosen = variant_sides(ready, args)
    figures = multi.new_run("balance", args, ready)
    figures |= {"seconds": args.seconds, "paces": {}, "loads": {}}
    for _ in range(args.rounds):
        measure_round(figures, chosen, args)
        multi.save(figures, args)
    print(render(figures), end="")
