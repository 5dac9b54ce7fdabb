"""Counts the instructions a server executes per request, under valgrind's callgrind.

Slow, but the figure hardly depends on what else the machine does, so a change of one per cent can
be seen on a busy laptop. Only user-space instructions are counted. Two runs with a different number
of requests are made; the difference leaves start-up and shutdown out.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import peers, workloads
from .generators import HOST, MeasureError
from .measure import Placement, free_port, read_response, tree
from .peers import BUILD
from .workloads import Workload

# Which names of a dict collide is chance, and worth a per cent.
SAME_HASHES = {"PYTHONHASHSEED": "0"}


def drive(workload: Workload, port: int, requests: int) -> None:
    """`requests` on one connection, `workload.pipeline` at a time."""
    request = workload.request(f"{HOST}:{port}") * workload.pipeline
    with socket.create_connection((HOST, port), timeout=60) as sock, sock.makefile("rb") as stream:
        for _ in range(requests // workload.pipeline):
            sock.sendall(request)
            for _ in range(workload.pipeline):
                status, _, body = read_response(stream)
                if status != 200 or workload.expect not in (None, body):
                    raise MeasureError(f"wrong answer: {status}, {len(body)} bytes")


def instructions(folder: Path, pattern: str = "callgrind.out.*") -> int:
    total = 0
    for file in folder.glob(pattern):
        for line in file.read_text(errors="replace").splitlines():
            if found := re.match(r"(?:summary|totals): (\d+)", line):
                total += int(found[1])
                break
    return total


def callgrind(folder: Path) -> list[str]:
    """What stands before a command to have it counted, with all its processes."""
    out = f"--callgrind-out-file={folder}/callgrind.out.%p"
    return ["valgrind", "--tool=callgrind", "--trace-children=yes", "-q", out]


def folder_of(peer: peers.Peer, workload: Workload, requests: int, mark: str = "") -> Path:
    return BUILD / "callgrind" / f"{peer.name}-{workload.name}-{requests}{mark}"


@contextlib.contextmanager
def counted(
    peer: peers.Peer, workload: Workload, place: Placement, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server under callgrind, which writes to the folder, and its port."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = free_port()
    line, environ = peers.command_line(
        peer, workload.app, workload.interface, port, place.python, place.ppserver
    )
    if not line[0].endswith(("python", "python3")) and "/bin/" in line[0]:
        line = [str(Path(line[0]).parent / "python"), *line]  # scripts have a #! of their own
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*callgrind(folder), *line],
            env=environ | SAME_HASHES,
            cwd=peers.HERE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                drive(workload, port, workload.pipeline)
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise MeasureError(f"the server did not start: see {folder}/log") from None
                time.sleep(0.5)
        yield server, port
    finally:
        family = tree(server.pid)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(120)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            print(f"{peer.name} did not end by itself; left over: {family}", file=sys.stderr)


def count(
    peer: peers.Peer, workload: Workload, place: Placement, requests: int, mark: str = ""
) -> int:
    """Of a whole run with so many requests. `mark` keeps two that run at once apart."""
    folder = folder_of(peer, workload, requests, mark)
    with counted(peer, workload, place, folder) as (_, port):
        drive(workload, port, requests)
    return instructions(folder)


def within(
    peer: peers.Peer, workload: Workload, place: Placement, requests: int, mark: str = ""
) -> float:
    """Per request, without start-up and shutdown, of a server that is one process.

    callgrind is told to write down its figure and begin anew, before the requests and after them.
    """
    folder = folder_of(peer, workload, requests, mark)
    with counted(peer, workload, place, folder) as (server, port):
        # The interpreter adapts its code to what runs often.
        drive(workload, port, 16 * max(workload.pipeline, 16))
        for number in (1, 2):
            done = subprocess.run(
                ["callgrind_control", "--dump", str(server.pid)], capture_output=True, text=True
            )
            if done.returncode != 0 or not list(folder.glob(f"callgrind.out.*.{number}")):
                raise MeasureError(f"callgrind_control: {done.stdout}{done.stderr}")
            if number == 1:
                drive(workload, port, requests)
    return instructions(folder, "callgrind.out.*.2") / requests


def each(
    peer: peers.Peer, workload: Workload, place: Placement, requests: int, mark: str = ""
) -> float:
    """Per request: the difference of two runs."""
    few = count(peer, workload, place, requests, mark)
    many = count(peer, workload, place, 3 * requests, mark)
    return (many - few) / (2 * requests)


def alone(workload: Workload, place: Placement, requests: int) -> float:
    """Per request, of the application without a server: the difference of two runs."""
    folder = BUILD / "callgrind" / f"alone-{workload.name}"
    found = []
    for number in (requests, 3 * requests):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        where = [peers.place_of(workload.app), workload.interface, workload.path]
        program = ["alone.py", *where, "600", "1", str(number)]
        done = subprocess.run(
            [*callgrind(folder), place.python, *program],
            cwd=peers.HERE,
            env=os.environ | SAME_HASHES,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise MeasureError(f"{workload.name} without a server: {done.stderr.strip()[-400:]}")
        found.append(instructions(folder))
    return (found[1] - found[0]) / (2 * requests)


def functions(folder: Path) -> Counter[str]:
    """Instructions by function, over all processes of a run."""
    total: Counter[str] = Counter()
    for file in folder.glob("callgrind.out.*"):
        done = subprocess.run(
            ["callgrind_annotate", "--threshold=100", "--inclusive=no", str(file)],
            capture_output=True,
            text=True,
        )
        for line in done.stdout.splitlines():
            if found := re.match(r"\s*([\d,]+) \([ \d.]+%\)\s+\S*?([^/\s:]+:\S+)", line):
                total[found[2].removesuffix("'2")] += int(found[1].replace(",", ""))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.count", description=__doc__)
    parser.add_argument("--peers", default="ppserver")
    parser.add_argument("--workloads", default="plain-1")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--annotate", type=int, metavar="N", help="also the N dearest functions")
    parser.add_argument(
        "--alone", action="store_true", help="also the application without a server"
    )
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--ppserver", type=Path, default=peers.ROOT)
    args = parser.parse_args()
    place = Placement(0, 1, args.python, args.ppserver)
    by_peer = {peer.name: peer for peer in peers.catalogue()}
    by_load = {workload.name: workload for workload in workloads.catalogue()}
    for name in args.peers.split(","):
        peer = by_peer[name]
        peers.prepare(by_peer[peer.env_name], args.python, args.ppserver)
        for load in args.workloads.split(","):
            figure = each(peer, by_load[load], place, args.requests)
            print(f"{name} {load}: {figure:,.0f} instructions a request", flush=True)
            if args.alone:
                own = alone(by_load[load], place, args.requests)
                print(f"without a server: {own:,.0f}; the server's own: {figure - own:,.0f}")
            if args.annotate:
                more = functions(folder_of(peer, by_load[load], 3 * args.requests))
                more.subtract(functions(folder_of(peer, by_load[load], args.requests)))
                for function, extra in more.most_common(args.annotate):
                    print(f"{extra / (2 * args.requests):10,.0f}  {function}")


if __name__ == "__main__":
    main()
