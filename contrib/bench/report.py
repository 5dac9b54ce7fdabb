"""Turns the raw figures of a run into Markdown tables."""

import statistics
from typing import Any

BUSY = 0.05  # a stretch in which something else used more of the server's core is marked


def spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def middle(workload: dict[str, Any], server: str, key: str) -> float | None:
    """The median of a figure of one server; None if it is not in it."""
    samples = workload["samples"].get(server, [])
    values = [sample[key] for sample in samples if key in sample]
    return statistics.median(values) if values else None


def ratios(workload: dict[str, Any], server: str, other: str, key: str) -> list[float]:
    """Of two servers in each round: the machine is not the same from one round to the next."""
    samples = workload["samples"]
    pairs = zip(samples.get(server, []), samples.get(other, []), strict=False)
    return [one[key] / two[key] for one, two in pairs if one.get(key) and two.get(key)]


def figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def latency(value: float) -> str:
    return f"{value:,.0f}" if value else "?"  # wrk loses some percentiles of pipelined requests


def table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def header(run: dict[str, Any]) -> str:
    machine = run["machine"]
    lines = [
        f"- {run['date']}, commit {run['commit']}, {run['rounds']} rounds of {run['seconds']} s, "
        f"peers interleaved",
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['system']}; server on core "
        f"{run['server_core']}, wrk on core {run['load_core']}; load average at the start "
        f"{machine['load']:.2f}",
        f"- {machine['python']}; {machine['compiler']}; TCP {machine['tcp']}",
    ]
    if run.get("ppserver"):
        lines.append(f"- ppserver {run['ppserver']}")
    named = []
    for name, found in run["versions"].items():
        package = name.partition("-")[0]  # a variant has the name of what it varies in front
        if package in found:
            named.append(f"{package} {found[package]}")
    if named := sorted(set(named)):
        lines.append("- peers: " + ", ".join(named))
    return "\n".join(lines)


def summary(run: dict[str, Any]) -> str:
    """One row a workload, one column a peer: microseconds a request, requests/s in brackets."""
    peers = run["peers"]
    rows = []
    for name, workload in run["workloads"].items():
        cells = [workload["title"]]
        for peer in peers:
            samples = workload["samples"].get(peer, [])
            if not samples:
                cells.append("fails" if peer in workload["failures"] else "")
                continue
            cpu = statistics.median(sample["cpu_us"] for sample in samples)
            rate = statistics.median(sample["rate"] for sample in samples)
            cells.append(f"{figure(cpu)} ({rate / 1000:.1f}k)")
        if len(cells) > 1:
            rows.append(cells)
        assert name
    return table(["workload", *peers], rows)


def details(workload: dict[str, Any], baseline: dict[str, Any] | None) -> str:
    """One workload: a row a peer, fastest first."""
    measured = {peer: s for peer, s in workload["samples"].items() if s}
    medians = {p: statistics.median(s["cpu_us"] for s in ss) for p, ss in measured.items()}
    own = medians.get("ppserver")
    rows = []
    for peer in sorted(medians, key=lambda name: medians[name]):
        samples = measured[peer]
        cpu, low, high = spread([s["cpu_us"] for s in samples])
        middle = {key: statistics.median(s[key] for s in samples) for key in samples[0]}
        notes = []
        if errors := sum(s["errors"] for s in samples):
            notes.append(f"{errors} errors")
        if busy := sum(s["foreign"] > BUSY for s in samples):
            notes.append(f"core shared in {busy} of {len(samples)}")
        if baseline and baseline["samples"].get(peer):
            before = statistics.median(s["cpu_us"] for s in baseline["samples"][peer])
            notes.append(f"{cpu / before:.2f} of the baseline")
        rows.append(
            [
                peer,
                figure(cpu),
                f"{figure(low)}..{figure(high)}",
                f"{cpu / own:.2f}" if own else "",
                f"{middle['rate']:,.0f}",
                latency(middle["p50_us"]),
                latency(middle["p99_us"]),
                f"{middle['pss_kb'] / 1024:.1f}",
                f"{middle['response_bytes']:.0f}",
                ", ".join(notes),
            ]
        )
    head = [
        "server",
        "CPU µs",
        "min..max",
        "to ppserver",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "PSS MB",
        "bytes",
        "notes",
    ]
    parts = [f"### {workload['title']}", "", table(head, rows)]
    for peer, why in workload["failures"].items():
        parts += ["", f"{peer} is not in it: {why.splitlines()[0]}"]
    return "\n".join(parts)


def idle(figures: dict[str, Any]) -> str:
    rows = []
    for peer, result in figures.items():
        if "failure" in result:
            rows.append([peer, result["failure"].splitlines()[0][:60], "", "", ""])
            continue
        points = {p["connections"]: p for p in result["points"]}
        rows.append(
            [
                peer,
                f"{result['bytes_per_connection']:.0f}",
                *(f"{points[n]['anon_kb'] / 1024:.1f}" for n in sorted(points) if n),
            ]
        )
    good = [result["points"] for result in figures.values() if "points" in result]
    steps = sorted(point["connections"] for point in good[0])[1:] if good else [0, 0, 0]
    head = ["server", "bytes a connection", *(f"MB at {step:,}" for step in steps)]
    return "### Memory of idle connections\n\n" + table(head, rows)


def render(run: dict[str, Any], baseline: dict[str, Any] | None = None) -> str:
    parts = [header(run)]
    if run["workloads"]:
        parts.append(
            "CPU microseconds of the whole server per request, median "
            "(requests per second in brackets)\n\n" + summary(run)
        )
    for name, workload in run["workloads"].items():
        before = baseline["workloads"].get(name) if baseline else None
        parts.append(details(workload, before))
    if run.get("idle"):
        parts.append(idle(run["idle"]))
    return "\n\n".join(parts) + "\n"
