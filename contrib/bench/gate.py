"""Has a request become dearer? Instructions per request of this tree beside those of a base commit.

Both are built in the same run, by the same compiler, for the same interpreter, and run the same
applications under callgrind, so the figures differ only by what changed. So do the parsers of both,
without a server, the same request heads. The base is the commit that `base-commit`, beside this
file, names: one for all changes, so that many small growths do not add up unseen.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import count, heads, peers, report, workloads
from .generators import MeasureError
from .measure import Placement
from .peers import BUILD, HERE, ROOT, SetupError, build_release, call
from .run import choose
from .workloads import Workload

# One at a time is for what runs on one thread. Where several do, the one that watches the others
# looks every millisecond: under callgrind that is about once a request, unless many come at once.
WORKLOADS = (
    *("plain-1", "pipeline", "json", "headers", "echo"),
    *("proxied", "wsgi-pipeline", "fast-pipeline"),
)
# With which options the server runs, where not with the usual ones.
VARIANTS = {"proxied": "ppserver-proxied"}
TOLERANCE = 1.0  # per cent
# A batch may last a millisecond; under callgrind, fifty times slower, that cuts a pipeline into
# more batches than there are, and into how many depends on the machine.
OPTIONS = ("-Dc_args=-DPP_BATCH_US=50000",)
AGAIN = 2  # times that what differs by more is counted anew
CHANCE = 3.0  # per cent: two counts of the same differ by less


def base_commit(named: str | None) -> str | None:
    """What to compare with: given, in the environment, or what the file names.

    None if that is not in this clone: it has too little history, or none.
    """
    found = named or os.environ.get("BENCH_BASE") or (HERE / "base-commit").read_text().split()[0]
    return found if git("cat-file", "-e", f"{found}^{{commit}}") is not None else None


def git(*command: str) -> str | None:
    """The output, or None if git fails."""
    done = subprocess.run(["git", *command], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else None


def source_of(commit: str, folder: Path) -> Path:
    """The tree of a commit, in `folder`; raises SetupError if it cannot be written."""
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    archive = folder / "source.tar"
    call("git", "archive", "-o", archive, commit, cwd=ROOT, log=folder / "log")
    call("tar", "-xf", archive, "-C", source, cwd=folder, log=folder / "log")
    archive.unlink()
    return source


def build(source: Path, folder: Path) -> Path:
    """A release build of `source`: the folder to import it from."""
    objects, tree = folder / "build", folder / "tree"
    shutil.rmtree(objects, ignore_errors=True)
    shutil.rmtree(tree, ignore_errors=True)
    build_release(source, objects, options=OPTIONS)
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "native")
    shutil.copytree(source / "ppserver", tree / "ppserver", ignore=ignore)
    for package in ("parallel", "ctk"):
        shutil.copytree(source / "contrib" / package, tree / package, ignore=ignore)
    (extension,) = (objects / "ppserver" / "native").glob("_native*.so")
    shutil.copy(extension, tree / "ppserver")
    return tree


def measure(
    trees: Sequence[Path], loads: Sequence[Workload], requests: int
) -> list[dict[str, float]]:
    """For each tree, instructions a request by workload; as many servers at a time as cores."""
    by_name = {peer.name: peer for peer in peers.catalogue()}

    def one(tree: Path, load: Workload) -> float:
        own = by_name[VARIANTS.get(load.name, "ppserver")]
        place = Placement(0, 1, sys.executable, tree)
        # What the clock causes, once a second, shows among few of its cheap requests.
        times = 4 if load.interface == "parallel" else 1
        return count.within(own, load, place, times * requests, f"-{tree.parent.name}")

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [{load.name: pool.submit(one, tree, load) for load in loads} for tree in trees]
        return [{name: job.result() for name, job in of_tree.items()} for of_tree in jobs]


def measure_again(
    trees: Sequence[Path],
    loads: Sequence[Workload],
    requests: int,
    figures: Sequence[dict[str, float]],
) -> None:
    """Counts anew what seems to differ: how requests fall into turns is not the same in each run.

    The least of a tree's counts stays in its `figures`.
    """
    for known, counted in zip(figures, measure(trees, loads, requests), strict=True):
        for name, figure in counted.items():
            known[name] = min(known[name], figure)


def measure_heads(source: Path, folder: Path) -> dict[str, float]:
    """Instructions a head of the parser of `source`, of which `folder` has a build."""
    binary = heads.compile_heads(source, folder / "build")
    return {
        f"a head of {fields} fields": heads.instructions(binary, head, heads.OURS)
        for fields, head in heads.heads().items()
    }


def differs(name: str, base: dict[str, float], now: dict[str, float], tolerance: float) -> bool:
    """Either way: a base that was counted too high would hide a growth, if not by this much."""
    change = (now[name] / base[name] - 1) * 100
    return change > tolerance or -CHANCE < change < -tolerance


def compare(
    base: dict[str, float], now: dict[str, float], tolerance: float
) -> tuple[str, list[str]]:
    """A table, and the workloads that grew by more than `tolerance` per cent."""
    rows, grown = [], []
    for name, before in base.items():
        change = (now[name] / before - 1) * 100
        if change > tolerance:
            grown.append(name)
        note = "**grew**" if change > tolerance else ""
        rows.append([name, f"{before:,.0f}", f"{now[name]:,.0f}", f"{change:+.1f} %", note])
    return report.table(["instructions a request", "base", "now", "change", ""], rows), grown


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m contrib.bench gate", description=__doc__)
    parser.add_argument(
        "--base", help="a commit (default: $BENCH_BASE, or the one that base-commit names)"
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="comma-separated")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="per cent (default: %(default)g)"
    )
    args = parser.parse_args(arguments)
    loads = choose(args.workloads, workloads.catalogue(), "workload")
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (apt-get install valgrind)")
    commit = base_commit(args.base)
    if commit is None:
        print("skipped: the commit to compare with is not in this clone (git fetch --unshallow)")
        return
    try:
        folder = BUILD / "gate"
        sources = {folder / "base": source_of(commit, folder / "base"), folder / "now": ROOT}
        trees = [build(source, place) for place, source in sources.items()]
        base, this = measure(trees, loads, args.requests)
        for _ in range(AGAIN):
            suspects = [load for load in loads if differs(load.name, base, this, args.tolerance)]
            if suspects:
                measure_again(trees, suspects, args.requests, (base, this))
        for figures, (place, source) in zip((base, this), sources.items(), strict=True):
            figures |= measure_heads(source, place)
    except (SetupError, MeasureError) as why:
        sys.exit(f"gate: {why}")
    table, grown = compare(base, this, args.tolerance)
    print(f"base: {git('log', '-1', '--format=%h %s', commit)}\n\n{table}")
    if grown:
        sys.exit(f"more than {args.tolerance:g} % dearer than {commit[:7]}: {', '.join(grown)}")
