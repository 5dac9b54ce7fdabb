"""What another context costs: memory after importing frameworks, and time until it serves.

memory    (PSS of the process tree with 4 contexts - PSS with 1) / 3, each context having answered
          50 requests; with nothing imported, with Starlette, and with Django. At import, before the
          contexts; interpreters import for themselves.
start     from starting the server to its line `ppserver running on`, with 1 context and with 4;
          the difference over 3 is one more context, starting together with others on the cores
          that there are.
one more  from SIGTTIN, which asks a running server for one more context, to the line `Application
          startup complete.` that it brings; empty where a back end does not take the signal.

Lines are timed where they arrive, by the monotonic clock of this process.
"""

import argparse
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import multi, peers
from .generators import HOST, MeasureError
from .measure import end, free_port, tree
from .memory import settle
from .multi import HERE, ROOT, Side
from .peers import Target

FRAMEWORKS = {"nothing": "", "Starlette": "starlette", "Django": "django"}
REQUESTS = 50  # of each context, so that lazily made things are there
RUNNING, COMPLETE = "ppserver running on", "Application startup complete."


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = multi.parser("contexts", __doc__)
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS))
    parser.add_argument("--backends", default=",".join(multi.BACKENDS))
    parser.add_argument("--contexts", type=int, default=4)
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.contexts = 1, min(args.contexts, 2)
    if args.contexts < 2:
        sys.exit("--contexts: expected 2 or more")
    if unknown := set(args.frameworks.split(",")) - set(FRAMEWORKS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(FRAMEWORKS)}")
    return args


def memory_mb(side: Side, contexts: int, needs: str) -> tuple[float, int]:
    """PSS of the tree, and the number of its processes."""
    environ = multi.app_environ(needs, 1)
    with multi.serving(side, contexts, environ) as (pid, port):
        by_name = multi.connect_to_each(port, contexts)
        for sock in by_name.values():
            with sock:
                for _ in range(REQUESTS):
                    multi.ask(port, "/work", sock)
        return settle(pid)["Pss"] / 1024, len(tree(pid))


class Lines:
    """The lines a server prints, with the time at which each arrived."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self.seen: list[str] = []
        self._queue: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(server,))
        self._thread.start()

    def _read(self, server: "subprocess.Popen[str]") -> None:
        assert server.stdout is not None
        for line in server.stdout:
            self._queue.put((time.monotonic(), line.rstrip()))
        self._queue.put((time.monotonic(), ""))

    def wait(self, text: str, timeout: float) -> float:
        """When the next line with `text` arrived."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                at, line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise MeasureError(f"no line {text!r} within {timeout:g} s") from None
            if not line:
                tail = " ".join(self.seen[-6:])
                raise MeasureError(f"the server ended at start: {tail}")
            self.seen.append(line)
            if text in line:
                return at

    def close(self) -> None:
        self._thread.join()


@contextmanager
def started(side: Side, contexts: int, needs: str) -> Iterator[tuple[int, Lines, float]]:
    """A server from its first moment: (pid, its lines, when it was started)."""
    target = Target("multi_apps:Site", "asgi", free_port(), side.python.path, HERE)
    environ = peers.ppserver_environ(ROOT) | side.variables()
    environ |= multi.app_environ(needs, 1) | {"PYTHONUNBUFFERED": "1"}
    line = [*side.command(target, contexts, lifespan=True), "--factory"]
    began = time.monotonic()
    with subprocess.Popen(
        line,
        env=environ,
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        lines = Lines(server)
        try:
            yield server.pid, lines, began
        finally:
            end(server)
            lines.close()


def start_ms(side: Side, contexts: int, needs: str, more: bool) -> tuple[float, float | None]:
    """Milliseconds until it serves, and until one more context does."""
    with started(side, contexts, needs) as (pid, lines, began):
        took = (lines.wait(RUNNING, 120) - began) * 1000
        if not more:
            return took, None
        asked = time.monotonic()
        os.kill(pid, signal.SIGTTIN)
        try:
            return took, (lines.wait(COMPLETE, 10) - asked) * 1000
        except MeasureError as why:
            print(f"{side.name}: one more: {why}", file=sys.stderr)
            return took, None


def measure(side: Side, needs: str, args: argparse.Namespace) -> dict[str, float | None]:
    more = args.contexts - 1
    one_mb, one_processes = memory_mb(side, 1, needs)
    many_mb, processes = memory_mb(side, args.contexts, needs)
    one_ms, one_more = start_ms(side, 1, needs, more=True)
    many_ms, _ = start_ms(side, args.contexts, needs, more=False)
    return {
        "one_mb": one_mb,
        "extra_mb": (many_mb - one_mb) / more,
        "processes": processes,
        "one_processes": one_processes,
        "one_ms": one_ms,
        "many_ms": many_ms,
        "extra_ms": (many_ms - one_ms) / more,
        "one_more_ms": one_more,
    }


def render(figures: dict[str, Any]) -> str:
    parts = [multi.header(figures)]
    head = ["side", "1 context, MB", "extra MB", "processes", "start ms, 1"]
    head += [f"start ms, {figures['contexts']}", "extra ms", "one more, ms"]
    columns = ("one_ms", "many_ms", "extra_ms", "one_more_ms")
    for framework, by_side in figures["frameworks"].items():
        rows = []
        for side, samples in by_side.items():
            row = [
                side,
                *(multi.middle([s[k] for s in samples]) for k in ("one_mb", "extra_mb")),
            ]
            row.append(f"{statistics.median(s['processes'] for s in samples):.0f}")
            for column in columns:
                had = [s[column] for s in samples if s[column] is not None]
                row.append(multi.middle(had, 1))
            rows.append(row)
        parts.append(f"### One more context: {framework} imported\n\n" + multi.table(head, rows))
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    if args.render:
        print(render(json.loads(args.render.read_text())), end="")
        return
    ready = multi.pythons(args)
    figures = multi.new_run("contexts", args, ready)
    figures |= {"contexts": args.contexts, "host": HOST, "frameworks": {}}
    for number in range(args.rounds):
        for framework in args.frameworks.split(","):
            for side in multi.sides(ready, args.backends.split(",")):
                if side.backend == "threads" and side.python.has_gil:
                    continue
                name = f"{framework}, {side.name}"
                if name in figures["refused"]:
                    continue
                try:
                    sample = measure(side, FRAMEWORKS[framework], args)
                except (MeasureError, OSError) as why:
                    multi.refuse(figures, name, why)
                    continue
                by_side = figures["frameworks"].setdefault(framework, {})
                by_side.setdefault(side.name, []).append(sample)
                print(
                    f"round {number + 1}, {name}: {sample['extra_mb']:.2f} MB and "
                    f"{sample['extra_ms']:.1f} ms for one more",
                    file=sys.stderr,
                )
        multi.save(figures, args)
    print(render(figures), end="")
