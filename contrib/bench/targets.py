"""What ppserver promises about its cost beside others, and whether a run kept it.

A ratio to another server is the median of those of the rounds, in which both took turns; a run that
does not have what a target is about says nothing of it.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import report
from .peers import BASELINE, is_floor

Run = dict[str, Any]
OWN = "ppserver"


@dataclass(frozen=True)
class Outcome:
    """One target as a run has it: the figure must not be above the limit, or not below it."""

    figure: float
    limit: float
    text: str  # how it was come by
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


@dataclass(frozen=True)
class Target:
    what: str
    promise: str
    look: Callable[[Run], Outcome | None]  # None: the run does not say


def median(run: Run, workload: str, server: str, key: str = "cpu_us") -> float | None:
    found = run["workloads"].get(workload)
    return None if found is None else report.middle(found, server, key)


def ratio(run: Run, workload: str, other: str, key: str) -> list[float]:
    found = run["workloads"].get(workload)
    return [] if found is None else report.ratios(found, OWN, other, key)


def compared(
    run: Run, workload: str, limit: float, other: str, called: str, key: str = "cpu_us"
) -> Outcome | None:
    """Ours beside another server's, round by round."""
    own, theirs = median(run, workload, OWN, key), median(run, workload, other, key)
    rounds = ratio(run, workload, other, key)
    if own is None or theirs is None or not rounds:
        return None
    middle, low, high = report.spread(rounds)
    text = f"{report.figure(own)} beside {report.figure(theirs)} of {called}"
    if len(rounds) > 1:
        text += f"; by round {low:.2f}..{high:.2f}"
    return Outcome(middle, limit, text)


def peers_of(run: Run, workload: str) -> list[str]:
    """All but ours and the floor."""
    found = run["workloads"].get(workload, {"samples": {}})["samples"]
    return [name for name in found if not name.startswith(OWN) and not is_floor(name)]


def beside(workload: str, limit: float, peer: str | None = None, key: str = "cpu_us") -> Target:
    """At most ``limit`` of a peer's figure, or of the best peer's."""

    def look(run: Run) -> Outcome | None:
        names = [peer] if peer is not None else peers_of(run, workload)
        found = [compared(run, workload, limit, name, name, key) for name in names]
        outcomes = [outcome for outcome in found if outcome is not None]
        return max(outcomes, key=lambda outcome: outcome.figure, default=None)

    name = {"cpu_us": "", "p99_us": ", p99", "worker_kb": ", PSS of a worker"}[key]
    return Target(f"{title(workload)}{name}", f"≤ {limit:g} of {peer or 'the best peer'}", look)


def floor(workload: str, limit: float) -> Target:
    """At most ``limit`` of what bare C takes for the same."""

    def look(run: Run) -> Outcome | None:
        return compared(run, workload, limit, BASELINE, "bare C")

    return Target(title(workload), f"≤ {limit:g} of bare C", look)


def at_most(workload: str, limit_us: float) -> Target:
    def look(run: Run) -> Outcome | None:
        own = median(run, workload, OWN)
        return None if own is None else Outcome(own, limit_us, f"{report.figure(own)} µs")

    return Target(title(workload), f"≤ {limit_us:g} µs", look)


def above_alone(workload: str, limit_us: float) -> Target:
    """User time beyond what the application takes by itself, beside it on the same core."""

    def look(run: Run) -> Outcome | None:
        shares = run["workloads"].get(workload, {}).get("shares", [])
        if not shares:
            return None
        served, alone = ([one[key] for one in shares] for key in ("served_us", "alone_us"))
        middle, low, high = report.spread([one["served_us"] - one["alone_us"] for one in shares])
        text = f"{statistics.median(served):.1f} in user space, {statistics.median(alone):.1f}"
        text += f" without a server; {low:.1f}..{high:.1f}"
        return Outcome(middle, limit_us, text)

    return Target(f"{title(workload)}, the server's own", f"≤ {limit_us:g} µs", look)


def idle_bytes(limit: float) -> Target:
    def look(run: Run) -> Outcome | None:
        own = run.get("idle", {}).get(OWN, {}).get("bytes_per_connection")
        return None if own is None else Outcome(own, limit, f"{own:.0f} bytes")

    return Target("an idle connection", f"≤ {limit:g} bytes", look)


def scaling(limit: float) -> Target:
    """Two contexts beside one, by what a request costs: the load takes its part of both cores."""

    def look(run: Run) -> Outcome | None:
        one, two = median(run, "plain", OWN), median(run, "plain@2", OWN)
        if one is None or two is None:
            return None
        text = f"{report.figure(two)} µs with two contexts, {report.figure(one)} with one"
        return Outcome(2 * one / two, limit, text, at_least=True)

    return Target("two contexts", f"≥ {limit:g} of one", look)


def title(name: str) -> str:
    from .workloads import catalogue

    plain, _, workers = name.partition("@")
    found = {workload.name: workload for workload in catalogue()}[plain]
    return found.with_workers(int(workers or 1)).title


FRAMEWORKS = ("fastapi", "django", "django-wsgi", "flask")


def catalogue() -> list[Target]:
    return [
        floor("plain", 1.5),
        beside("plain", 0.5),
        beside("plain-8", 0.5),
        beside("plain-1", 1),
        at_most("pipeline", 3),
        beside("pipeline", 0.3),
        beside("headers", 0.5),
        beside("json", 0.5),
        beside("echo", 0.5),
        beside("echo100k", 0.8),
        beside("big", 0.8),
        beside("stream", 0.35),
        floor("close", 1.3),
        beside("starlette", 0.75),
        *(beside(name, 1) for name in FRAMEWORKS),
        *(above_alone(name, 1.5) for name in FRAMEWORKS),
        floor("wsgi", 1.4),
        beside("wsgi", 1, "bjoern"),
        beside("wsgi", 1, "fastpysgi"),
        floor("fast", 1.25),
        beside("paced", 1, key="p99_us"),
        beside("paced-512", 1, key="p99_us"),
        idle_bytes(1024),
        beside("plain@2", 1, key="worker_kb"),
        beside("plain", 1, "granian"),
        beside("plain@2", 1, "granian"),
        scaling(1.9),
    ]


def render(run: Run) -> str:
    """A table of those that the run says something about; "" if there is none."""
    rows = []
    for target in catalogue():
        outcome = target.look(run)
        if outcome is not None:
            verdict = "met" if outcome.met else "**missed**"
            figure = report.figure(outcome.figure)
            rows.append([target.what, target.promise, figure, verdict, outcome.text])
    if not rows:
        return ""
    return "### Targets\n\n" + report.table(["what", "target", "here", "", "how"], rows)
