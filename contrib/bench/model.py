"""What limits more cores than this machine has: a model fed with costs measured on it.

A context is a customer of a closed queueing network. By itself it spends user and kernel time on a
request (a core of its own: no queue), and visits the places that it shares with all other contexts,
each of which serves one context at a time:

cache lines   each write fetches the line from the core that wrote it last
accept queue  the lock of a listening socket that all accept from (--balance load)
fd table      one process's descriptor table is locked for each descriptor opened and closed
acceptor      one thread that would accept for all contexts
memory        bytes moved, over the bandwidth of all channels

A connection costs its context more with the number of contexts when the least loaded one gets it:
whoever accepts reads the load of all others, and most connections are handed over.

Exact mean value analysis gives throughput, and how busy each place is, for 1 to 128 contexts;
`simulate` plays the same network event by event, as a check (the two agree within statistics).

Measured (--measure): user and kernel time of hello world, the cost of a connection and of handing
it over (two contexts with --balance load, against --balance kernel), an atomic add
alone and by two threads, a line's way from core to core, accepting, opening and closing of
descriptors by two threads of one process, copying by one thread and by two.
Assumed, and why:
- A line's way gets longer linearly with the number of contexts that write it, `far` times as long
  at `far_at` (other chiplets, other sockets). That contexts queue for a line comes on top: at
  saturation what one write costs grows linearly with the contexts that write.
- Bandwidth grows with the contexts, half of what two threads copied for each, up to
  `bandwidth_max`, which is a server processor with eight channels.
- Accepting holds the lock of the socket's queue for `accept_queue_ns`.
- Every connection is handed over, but for one in as many as there are contexts: an upper bound,
  for who is idle accepts first.
- Reading a slot of the board fetches `board_lines` lines, `reads_at_once` at a time since none
  waits for another's content; its owner fetches one back.
- What a kernel shares within one socket's own work (nothing written by all, by its design) is left
  out, and so are interrupts, the network card, and the clock that falls when all cores are busy.

The input is a JSON file: see model.json beside this, which has what was measured last.
"""

import argparse
import heapq
import json
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import chart, generators, multi
from .measure import raise_fd_limit, tree, tree_cpu_ns
from .multi import Side, table
from .peers import HERE

COUNTS = (1, 2, 4, 8, 16, 32, 64, 96, 128)


# -- the network -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A place that serves one context at a time, and for how long a request needs it."""

    name: str
    demand_us: float


@dataclass(frozen=True)
class Answer:
    """Throughput with a number of contexts, and how busy each place is."""

    contexts: int
    rate: float  # requests a second
    busy: dict[str, float]
    own_us: float  # a request's time that is spent by itself
    waiting_us: float  # per request, for and at shared places


def way_ns(costs: dict[str, Any], contexts: int) -> float:
    """A line's way from one core to another, when so many contexts have a part in it."""
    slope = (costs["far"] - 1) / (costs["far_at"] - 2)
    return float(costs["pass_ns"] * (1 + slope * max(0, contexts - 2)))


def line_ns(costs: dict[str, Any], contexts: int) -> float:
    """What one write of a line costs that `contexts` write in turn, without waiting for others."""
    alone = float(costs["add_ns"])
    fetched = max(way_ns(costs, contexts), alone)
    return alone + (fetched - alone) * (contexts - 1) / contexts


def connection_us(costs: dict[str, Any], scenario: dict[str, Any], contexts: int) -> float:
    """What a connection costs by itself: opening, serving, closing, and choosing its context."""
    total = float(costs["connection_us"])
    if scenario["balance"]:
        # Who accepts reads the others' slots, several at once; each owner fetches its line back.
        others = min(contexts - 1, scenario.get("choices", contexts))
        lines = costs["board_lines"] / costs["reads_at_once"] + 1
        total += others * lines * way_ns(costs, contexts) / 1000
        total += costs["hand_over_us"] * (contexts - 1) / contexts
    return total


def network(
    costs: dict[str, Any], scenario: dict[str, Any], contexts: int
) -> tuple[float, list[Place]]:
    """Microseconds a request that a context spends by itself, and the shared places."""
    per_connection = scenario.get("requests_per_connection", costs["requests_per_connection"])
    own = costs["user_us"] + costs["kernel_us"]
    own += connection_us(costs, scenario, contexts) / per_connection
    places = []
    for line in scenario["lines"]:
        writes = line.get("per_request", 0) + line.get("per_connection", 0) / per_connection
        places.append(Place(line["name"], writes * line_ns(costs, contexts) / 1000))
    if scenario["balance"]:
        # All accept from one socket.
        locked = costs["accept_queue_ns"] + line_ns(costs, contexts) - line_ns(costs, 1)
        places.append(Place("accept queue", locked / 1000 / per_connection))
    if scenario["fd_table"]:
        # Two threads that did nothing else opened and closed, twice each, in fd_shared_ns.
        far = line_ns(costs, contexts) - line_ns(costs, min(contexts, 2))
        places.append(
            Place("fd table", 2 * (costs["fd_shared_ns"] / 4 + far) / 1000 / per_connection)
        )
    if scenario["acceptor"]:
        places.append(Place("acceptor", costs["accept_ns"] / 1000 / per_connection))
    moved = costs["copies"] * (costs["request_bytes"] + costs["response_bytes"])
    moved += costs["object_bytes"]
    bandwidth = min(contexts * costs["copy_2"] / 2, costs["bandwidth_max"])
    places.append(Place("memory", moved / bandwidth * 1e6))
    # What was measured in one context has its visits to shared places in it.
    within = ("accept queue", "fd table", "acceptor", "memory")
    measured = sum(place.demand_us for place in places if place.name in within)
    return max(own - measured, 0.0), places


def solve(costs: dict[str, Any], scenario: dict[str, Any], contexts: int) -> Answer:
    """Exact mean value analysis of the network with `contexts` customers."""
    own, places = network(costs, scenario, contexts)
    queued = [0.0] * len(places)
    rate = 0.0
    residence = [0.0] * len(places)
    for customers in range(1, contexts + 1):
        residence = [
            place.demand_us * (1 + queue) for place, queue in zip(places, queued, strict=True)
        ]
        rate = customers / (own + sum(residence))
        queued = [rate * time for time in residence]
    busy = {place.name: rate * place.demand_us for place in places}
    return Answer(contexts, rate * 1e6, busy, own, sum(residence))


def simulate(
    costs: dict[str, Any],
    scenario: dict[str, Any],
    contexts: int,
    requests: int = 100_000,
    seed: int = 1,
) -> float:
    """Requests a second of the same network, event by event, with exponential times."""
    own, places = network(costs, scenario, contexts)
    rng = random.Random(seed)
    free_at = [0.0] * len(places)
    # (time, tie-break, place to go to next); -1: the request is done, the next one begins
    events = [(rng.expovariate(1 / own), number, 0) for number in range(contexts)]
    heapq.heapify(events)
    serial, done, now = contexts, 0, 0.0
    began, warm = 0.0, requests // 10
    while done < requests:
        now, _, where = heapq.heappop(events)
        if where == len(places):
            done += 1
            if done == warm:
                began = now
            when, where = now + rng.expovariate(1 / own), 0
        else:
            demand = places[where].demand_us
            served = rng.expovariate(1 / demand) if demand > 0 else 0.0
            when = max(now, free_at[where]) + served
            free_at[where] = when
            where += 1
        serial += 1
        heapq.heappush(events, (when, serial, where))
    return (requests - warm) / (now - began) * 1e6


def verdict(answer: Answer, alone: Answer) -> str:
    """What holds it, in words."""
    efficiency = answer.rate / (answer.contexts * alone.rate)
    name, busy = max(answer.busy.items(), key=lambda item: item[1])
    if busy >= 0.9:
        return f"{name}, saturated"
    more, waiting = answer.own_us - alone.own_us, answer.waiting_us - alone.waiting_us
    what = f"waiting for {name}, {busy:.0%} busy"
    if more > waiting:
        what = f"choosing and handing over, {more / answer.own_us:.0%} of the time"
    return what if efficiency < 0.9 else "the cores themselves"


# -- measuring -------------------------------------------------------------------------------------


def measure_costs(seconds: float, quick: bool) -> dict[str, Any]:
    """The measured half of the input, on this machine, with this interpreter."""
    python = multi.prepare_python(sys.executable, as_is=True)
    line = [str(generators.compile_c("cacheline")), *(["1", "3"] if quick else [])]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    costs: dict[str, Any] = json.loads(done.stdout)
    side = Side(python, "processes")
    with multi.serving(side, 1, multi.app_environ("", 1)) as (pid, port):

        def split() -> tuple[int, int]:
            return user_and_kernel_ticks(pid)

        hello, begin, end = generators.storm(
            port, "/hello", at=lambda: (tree_cpu_ns(pid), split()), seconds=seconds, warmup=0.5
        )
        single_us = storm_us(pid, port, seconds)
    request_us = (end[0] - begin[0]) / 1000 / hello["requests"]
    more_us = []
    for _ in range(1 if quick else 5):  # A difference of two figures that vary by as much.
        by_balance = {}
        for balance in ("kernel", "load"):
            two = Side(python, "processes", extra=("--balance", balance))
            with multi.serving(two, 2, multi.app_environ("", 1)) as (pid, port):
                by_balance[balance] = storm_us(pid, port, seconds)
        more_us.append(by_balance["load"] - by_balance["kernel"])
    user, kernel = (after - before for before, after in zip(begin[1], end[1], strict=True))
    share = user / max(1, user + kernel)
    machine = multi.new_run("model", argparse.Namespace(rounds=1), [python])["machine"]
    return costs | {
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, loopback; "
        f"CPython {python.tag}, one process",
        "user_us": round(request_us * share, 3),
        "kernel_us": round(request_us * (1 - share), 3),
        "connection_us": round(max(0.0, single_us - request_us), 3),
        # Half of them, with two contexts.
        "hand_over_us": round(max(0.0, statistics.median(more_us)) * 2, 3),
    }


def storm_us(pid: int, port: int, seconds: float) -> float:
    """Processor time of a server's tree for a connection with one request."""
    opened, first, last = generators.storm(
        port,
        "/hello",
        at=lambda: tree_cpu_ns(pid),
        open=True,
        connections=1024,
        rate=5000,
        seconds=seconds,
        warmup=0.3,
    )
    return float(last - first) / 1000 / opened["requests"]


def user_and_kernel_ticks(root: int) -> tuple[int, int]:
    """Clock ticks of a tree in user space and in the kernel."""
    user = kernel = 0
    for pid in tree(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        kernel += int(fields[12])
    return user, kernel


# -- command line ----------------------------------------------------------------------------------


def render(given: dict[str, Any]) -> str:
    costs = given["measured"] | given["assumed"]
    parts = [
        f"- measured: {given['measured'].get('machine', '')}",
        "- " + ", ".join(f"{k} {v:g}" for k, v in costs.items() if isinstance(v, (int, float))),
    ]
    head = ["contexts", "requests/s", "speed-up", "of linear", "at shared places, µs"]
    head += ["what limits"]
    sections = ["\n".join(parts)]
    for scenario in given["scenarios"].values():
        single = solve(costs, scenario, 1)
        rows = []
        for contexts in COUNTS:
            answer = solve(costs, scenario, contexts)
            rows.append(
                [
                    str(contexts),
                    f"{answer.rate:,.0f}",
                    f"{answer.rate / single.rate:.1f}",
                    f"{answer.rate / single.rate / contexts:.0%}",
                    f"{answer.waiting_us:.2f}",
                    verdict(answer, single),
                ]
            )
        sections.append(f"### {scenario['title']}\n\n{table(head, rows)}")
    return "\n\n".join(sections) + "\n"


def curves(given: dict[str, Any]) -> list[chart.Curve]:
    costs = given["measured"] | given["assumed"]
    found = []
    for scenario in given["scenarios"].values():
        single = solve(costs, scenario, 1).rate
        points = [(n, solve(costs, scenario, n).rate / single) for n in range(1, COUNTS[-1] + 1)]
        found.append(chart.Curve(scenario["title"], points))
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m contrib.bench model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", type=Path, default=HERE / "model.json")
    parser.add_argument("--measure", action="store_true", help="measure this machine's costs first")
    parser.add_argument("--seconds", type=float, default=3, help="of each measured stretch")
    parser.add_argument("--quick", action="store_true", help="measure briefly")
    parser.add_argument("--json", type=Path, help="write the input, with what was measured, here")
    parser.add_argument("--svg", type=Path, help="write a chart of the speed-up here")
    parser.add_argument("--check", action="store_true", help="also play the network, as a check")
    args = parser.parse_args(arguments)
    given = json.loads(args.input.read_text())
    if args.measure:
        raise_fd_limit()
        given["measured"] |= measure_costs(0.3 if args.quick else args.seconds, args.quick)
    if args.json:
        args.json.write_text(json.dumps(given, indent=1) + "\n")
    print(render(given), end="")
    if args.svg:
        title = "Requests per second of so many contexts, over those of one"
        args.svg.write_text(chart.draw(title, "contexts", "times as many", curves(given)))
    if args.check:
        costs = given["measured"] | given["assumed"]
        for scenario in given["scenarios"].values():
            for contexts in (8, 64):
                exact = solve(costs, scenario, contexts).rate
                played = simulate(costs, scenario, contexts)
                print(f"{scenario['title']}, {contexts}: played over exact {played / exact:.3f}")
