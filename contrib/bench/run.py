"""Measures ppserver beside its peers, on one machine, in one run.

Every server gets one worker pinned to one core, and wrk another (--workers: more of them). For each
workload the servers take turns (A B C A B C ...), each turn with a fresh process; answers are
verified before and after.
Raw figures go to build/bench/results/, tables to standard output.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import generators, memory, page, peers, report, targets, workloads
from .generators import MeasureError
from .measure import Placement, Sample, capacity, measure, raise_fd_limit
from .peers import BUILD, ROOT, Peer, SetupError
from .workloads import Workload

QUICK_PEERS = ("bare", "ppserver", "uvicorn", "granian-rust", "h2corn", "fastpysgi", "bjoern")

# Turns of a second differed by more than what is asked for; these still do by some per cent.
SHARE_TURNS, SHARE_SECONDS = 3, 15.0


def parse() -> argparse.Namespace:
    known_peers = [p.name for p in peers.catalogue()]
    known_loads = [w.name for w in workloads.catalogue()]
    parser = argparse.ArgumentParser(
        prog="python -m contrib.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"peers: {' '.join(known_peers)}\nworkloads: {' '.join(known_loads)}\n"
        "With the name of a tool first it is about many contexts: see docs/internals/scaling.md.",
    )
    parser.add_argument("--peers", help="comma-separated; 'all' adds the ones off by default")
    parser.add_argument("--workloads", help="comma-separated; 'all' likewise; '' for none")
    parser.add_argument(
        "--memory",
        default=None,
        help="idle, for the memory of idle connections, or '' for none (default:"
        " idle, and none with --quick or --workloads)",
    )
    parser.add_argument(
        "--workers",
        type=counts,
        default=[1],
        help="how many each server has, comma-separated: one has a core of its own, more of them"
        " share all cores with the load (default: 1)",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of load in each turn, whole")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="1 round of 1 s, not warmed up, beside the quicker peers: a smoke test",
    )
    parser.add_argument("--json", type=Path, help="where the raw figures go as well")
    parser.add_argument("--baseline", type=Path, help="raw figures of a former run to compare with")
    parser.add_argument("--report", type=Path, help="an HTML page with pictures, to be written")
    parser.add_argument("--render", type=Path, help="only print the tables of a former run")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument(
        "--retries", type=int, default=1, help="new turns when something else used the core"
    )
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds of rest before a turn, for others' sake"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of all servers (default: this one)"
    )
    parser.add_argument(
        "--ppserver",
        type=Path,
        default=ROOT,
        help="folder that holds the ppserver package to measure (default: %(default)s)",
    )
    parser.add_argument("--setup-only", action="store_true", help="install the peers and stop")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.retries = 1, 1, 0
        args.peers = ",".join(QUICK_PEERS) if args.peers is None else args.peers
    if args.memory is None:
        args.memory = "" if args.quick or args.workloads is not None else "idle"
    return args


def counts(text: str) -> list[int]:
    """ "1,2" as numbers of workers."""
    found = [int(part) for part in text.split(",")]
    if not all(1 <= count <= 64 for count in found):
        raise ValueError(text)
    return found


def choose(text: str | None, known: Iterable[Any], what: str) -> list[Any]:
    everything = list(known)
    if text is None:
        return [item for item in everything if item.default]
    if text == "all":
        return everything
    names = {item.name: item for item in everything}
    chosen = [name for name in text.split(",") if name]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        sys.exit(f"unknown {what}: {', '.join(unknown)}; there are {', '.join(names)}")
    return [names[name] for name in chosen]


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def build_flags() -> str:
    return str(sysconfig.get_config_var("CONFIG_ARGS"))


def machine() -> dict[str, Any]:
    cpu = platform.processor() or "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        f" ({'with' if '--enable-optimizations' in build_flags() else 'without'} PGO)",
        "tcp": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "compiler": output_of(os.environ.get("CC", "cc"), "--version").split("\n")[0],
        "load": os.getloadavg()[0],
    }


def commit() -> str:
    name = output_of("git", "rev-parse", "--short=12", "HEAD") or "unknown"
    return name + (" with changes" if output_of("git", "status", "--porcelain") else "")


def set_up(chosen: list[Peer], args: argparse.Namespace) -> list[Peer]:
    """The peers that can be measured here; says why for each that cannot."""
    ready = []
    by_name = {peer.name: peer for peer in peers.catalogue()}
    for peer in chosen:
        try:
            peers.prepare(by_name[peer.env_name], args.python, args.ppserver)
            ready.append(peer)
        except SetupError as why:
            print(f"without {peer.name}: {why}", file=sys.stderr)
    return ready


def measure_workload(
    workload: Workload, ready: list[Peer], place: Placement, args: argparse.Namespace
) -> dict[str, Any]:
    able = [
        peer
        for peer in ready
        if workload.interface in peer.interfaces
        and (workload.bare or not peers.is_floor(peer.name))
    ]
    samples: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in able}
    failures: dict[str, str] = {}
    rate = common_rate(workload, able, place, failures) if workload.share else 0
    own = next((peer for peer in able if peer.name == targets.OWN), None)
    shares: list[dict[str, float]] = []
    if own is not None and is_framework(workload) and not args.quick:
        shares = measure_shares(own, workload, place, args)
    for number in range(args.rounds):
        for peer in able:
            if peer.name in failures:
                continue
            time.sleep(args.pause)
            try:
                sample = quiet_measure(peer, workload, place, args, rate)
            except (MeasureError, SetupError, OSError) as why:
                failures[peer.name] = str(why)
                print(f"{workload.name} {peer.name}: {why}", file=sys.stderr)
                continue
            samples[peer.name].append(sample.as_dict())
            print(
                f"{workload.name:10} round {number + 1} {peer.name:16} {sample.cpu_us:8.2f} µs "
                f"{sample.rate:10,.0f}/s p50 {sample.p50_us:,.0f} p99 {sample.p99_us:,.0f} "
                f"errors {sample.errors} foreign {sample.foreign:.1%}",
                file=sys.stderr,
            )
    return {
        "title": workload.title,
        "samples": samples,
        "failures": failures,
        "rate": rate,
        "shares": shares,
    }


def common_rate(
    workload: Workload, able: list[Peer], place: Placement, failures: dict[str, str]
) -> float:
    """Requests a second for all alike: the workload's share of what the best peer can take.

    Of ours, where there is no peer. A server that cannot take so many goes to `failures`.
    """
    found: dict[str, float] = {}
    for peer in able:
        try:
            found[peer.name] = capacity(peer, workload, place)
        except (MeasureError, SetupError, OSError) as why:
            failures[peer.name] = str(why)
    others = [
        rate
        for name, rate in found.items()
        if not peers.is_floor(name) and not name.startswith(targets.OWN)
    ]
    rate = workload.share * max(others or found.values(), default=0)
    for name, most in found.items():
        if most < rate:
            failures[name] = f"it takes {most:,.0f} requests a second, and {rate:,.0f} were sent"
    return rate


def quiet_measure(
    peer: Peer, workload: Workload, place: Placement, args: argparse.Namespace, rate: float
) -> Sample:
    """The least disturbed of up to 1 + retries turns."""
    best = measure(peer, workload, place, args.seconds, rate, not args.quick)
    for _ in range(args.retries):
        if best.foreign <= report.BUSY:
            break
        time.sleep(2)
        again = measure(peer, workload, place, args.seconds, rate)
        best = min(best, again, key=lambda sample: sample.foreign)
    return best


def is_framework(workload: Workload) -> bool:
    beside = workload.workers > 1 or workload.neighbours > 0
    return workload.app.startswith("framework_apps:") and not beside


def measure_shares(
    own: Peer, workload: Workload, place: Placement, args: argparse.Namespace
) -> list[dict[str, float]]:
    """User time of a request (`served_us`), and of the application without a server (`alone_us`).

    Both run on the server's core in the same seconds, in turns of some milliseconds, so that what
    the machine does to one it does to the other. The kernel tells user time from its own by looking
    250 times a second or so: with a tenth of a millisecond a request, one microsecond takes more
    seconds than a turn has.
    """
    found: list[dict[str, float]] = []
    for _ in range(SHARE_TURNS):
        seconds = max(args.seconds, SHARE_SECONDS)
        # As long as the start of the server, its warming up and the load take.
        with alone(workload, place, seconds + 2) as calls:
            try:
                sample = measure(own, workload, place, seconds)
            except (MeasureError, SetupError, OSError) as why:
                print(f"{workload.name} beside the application: {why}", file=sys.stderr)
                break
            output, errors = calls.communicate(timeout=60)
        if calls.returncode != 0:
            print(f"{workload.name} without a server: {errors.strip()[-400:]}", file=sys.stderr)
            break
        found.append({"served_us": sample.user_us, "alone_us": float(output)})
        print(
            f"{workload.name:10} user time {sample.user_us:.2f} µs, {float(output):.2f} µs "
            "without a server",
            file=sys.stderr,
        )
    return found


@contextlib.contextmanager
def alone(workload: Workload, place: Placement, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The application called in a loop, on the server's core."""
    where = (workload.app, workload.interface, workload.path, str(seconds))
    width = str(workload.connections)
    with subprocess.Popen(
        [*generators.pinned(place.server_cores(1)), place.python, "alone.py", *where, width],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=peers.HERE,
    ) as calls:
        try:
            yield calls
        finally:
            calls.kill()


def measure_memory(ready: list[Peer], place: Placement, wanted: list[str]) -> dict[str, Any]:
    loads = {workload.name: workload for workload in workloads.catalogue()}
    result: dict[str, Any] = {}
    if "idle" in wanted:
        result["idle"] = {}
        for peer in ready:
            if peers.is_floor(peer.name):
                continue  # its buffers are fixed; the figure would say nothing
            workload = loads["plain" if "asgi" in peer.interfaces else "wsgi"]
            try:
                figures = memory.idle_connections(peer, workload, place)
                text = f"{figures['bytes_per_connection']:.0f} bytes a connection"
            except (MeasureError, OSError) as why:
                figures = {"failure": str(why) or type(why).__name__}
                text = figures["failure"]
            result["idle"][peer.name] = figures
            print(f"idle       {peer.name:24} {text}", file=sys.stderr)
    return result


def load_run(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(path.read_text())
    return run


def print_tables(run: dict[str, Any], baseline: dict[str, Any] | None) -> None:
    print(report.render(run, baseline), end="")
    if kept := targets.render(run):
        print("\n" + kept)


def write_page(run: dict[str, Any], args: argparse.Namespace) -> None:
    if args.report:
        args.report.write_text(page.render(run), encoding="utf-8")
        print(f"wrote {args.report}", file=sys.stderr)


def main() -> None:
    args = parse()
    baseline = load_run(args.baseline) if args.baseline else None
    if args.render:
        run = load_run(args.render)
        print_tables(run, baseline)
        write_page(run, args)
        return
    raise_fd_limit()
    if not {args.server_core, args.load_core} <= os.sched_getaffinity(0):
        sys.exit("this needs two cores; see --server-core and --load-core")
    BUILD.mkdir(parents=True, exist_ok=True)
    chosen = choose(args.peers, peers.catalogue(), "peer")
    chosen_loads = choose(args.workloads, workloads.catalogue(), "workload")
    loads = [load.with_workers(count) for load in chosen_loads for count in args.workers]
    if loads and not args.setup_only and shutil.which("wrk") is None:
        sys.exit("wrk is not installed (apt-get install wrk)")
    ready = set_up(chosen, args)
    if args.setup_only:
        return
    place = Placement(args.server_core, args.load_core, args.python, args.ppserver)
    own = any(not p.requires and not peers.is_floor(p.name) for p in ready)
    now = datetime.datetime.now(datetime.UTC)
    run: dict[str, Any] = {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
        "machine": machine(),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "server_core": args.server_core,
        "load_core": args.load_core,
        "peers": [peer.name for peer in ready],
        "ppserver": peers.check_ppserver(args.python, args.ppserver) if own else "",
        "versions": {peer.name: peers.versions(peer, args.python) for peer in ready},
        "workloads": {},
    }
    results = BUILD / "results"
    results.mkdir(exist_ok=True)
    files = [results / f"{now:%Y%m%d-%H%M%S}.json", results / "latest.json"]
    files += [args.json] if args.json else []

    def save() -> None:
        for file in files:
            file.write_text(json.dumps(run, indent=1) + "\n")

    try:
        for workload in loads:
            run["workloads"][workload.name] = measure_workload(workload, ready, place, args)
            save()
        run |= measure_memory(ready, place, args.memory.split(","))
        save()
    except KeyboardInterrupt:
        print("interrupted; what there is so far:", file=sys.stderr)
    print_tables(run, baseline)
    write_page(run, args)
