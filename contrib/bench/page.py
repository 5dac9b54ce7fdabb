"""The raw figures of a run as one HTML page with pictures: ``--report FILE.html``."""

import html
import re
from typing import Any

from . import chart, report, targets

BAR_HEIGHT, BAR_GAP, BAR_LEFT, BAR_WIDTH = 18, 6, 200, 760
_CONCURRENCY = re.compile(r"plain(?:-(\d+))?")
_AT_EIGHT = ("plain-8", "fast-8", "slow-8", "raw-8", "wsgi-8")
_OWN = {"fast-8": "ppserver, 'Fast'", "slow-8": "ppserver, 'Slow'", "raw-8": "ppserver, raw"}

_STYLE = """
body { font: 15px/1.45 sans-serif; color: #222; max-width: 880px; margin: 2em auto; padding: 0 1em }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2em }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0 }
td, th { padding: 2px 8px; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto } footer { color: #666; font-size: 13px; margin-top: 3em }
"""


def bars(title: str, unit: str, figures: list[tuple[str, float, bool]]) -> str:
    """Horizontal bars from zero, the shortest first; those marked are ours."""
    figures = sorted(figures, key=lambda one: one[1])
    top, step = 44, BAR_HEIGHT + BAR_GAP
    height = top + step * len(figures) + 12
    scale = (BAR_WIDTH - BAR_LEFT - 90) / max(value for _, value, _ in figures)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {BAR_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{BAR_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="24" font-size="15">{html.escape(title)}</text>',
    ]
    for number, (name, value, own) in enumerate(figures):
        y = top + step * number
        colour = "#1b6ca8" if own else "#b9c3cb"
        weight = ' font-weight="bold"' if own else ""
        parts += [
            f'<text x="{BAR_LEFT - 8}" y="{y + 13}" text-anchor="end"{weight}>'
            f"{html.escape(name)}</text>",
            f'<rect x="{BAR_LEFT}" y="{y}" width="{value * scale:.1f}" height="{BAR_HEIGHT}" '
            f'fill="{colour}"/>',
            f'<text x="{BAR_LEFT + value * scale + 6:.1f}" y="{y + 13}">'
            f"{report.figure(value)} {html.escape(unit)}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def by_concurrency(run: dict[str, Any], key: str) -> list[chart.Curve]:
    """A curve for each server over the connections of the plaintext workloads."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, workload in run["workloads"].items():
        match = _CONCURRENCY.fullmatch(name)
        if match is None:
            continue
        for peer in run["peers"]:
            if value := report.middle(workload, peer, key):
                found.setdefault(peer, []).append((float(match[1] or 64), value))
    return [chart.Curve(peer, sorted(points)) for peer, points in found.items() if len(points) > 1]


def curves(run: dict[str, Any]) -> list[str]:
    """Throughput and latency against concurrency."""
    parts = []
    for key, title, unit in (
        ("rate", "Requests a second", "thousand requests a second"),
        ("p50_us", "Latency, half of all requests", "p50, ms"),
        ("p99_us", "Latency, 99 of 100 requests", "p99, ms"),
        ("p999_us", "Latency, 999 of 1,000 requests", "p99.9, ms"),
    ):
        scaled = [
            chart.Curve(one.name, [(x, y / 1000) for x, y in one.points])
            for one in by_concurrency(run, key)
        ]
        if scaled:
            parts.append(chart.draw(title, "connections", unit, scaled, line=False))
    return parts


def by_workers(run: dict[str, Any]) -> str:
    """Requests a second over the number of workers."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, workload in run["workloads"].items():
        plain, _, workers = name.partition("@")
        for peer in run["peers"] if plain == "plain" else []:
            if value := report.middle(workload, peer, "rate"):
                found.setdefault(peer, []).append((float(workers or 1), value / 1000))
    lines = [chart.Curve(peer, sorted(points)) for peer, points in found.items() if points[1:]]
    if not lines:
        return ""
    unit = "thousand requests a second"
    return chart.draw("Requests a second over workers", "workers", unit, lines, line=False)


def at_eight(run: dict[str, Any]) -> str:
    """All servers at 8 connections in microseconds a request, as PyParallel's chart had it."""
    figures = []
    for name in _AT_EIGHT:
        workload = run["workloads"].get(name)
        for peer in run["peers"] if workload else []:
            if value := report.middle(workload, peer, "cpu_us"):
                own = peer.startswith("ppserver")
                label = _OWN.get(name, f"{peer}, WSGI" if name == "wsgi-8" else peer)
                if (label, value, own) not in figures and not (name in _OWN and not own):
                    figures.append((label, value, own))
    return bars("8 connections, processor time a request", "µs", figures) if figures else ""


def workload_parts(run: dict[str, Any]) -> list[str]:
    parts = []
    for workload in run["workloads"].values():
        figures = [
            (peer, value, peer.startswith("ppserver"))
            for peer in run["peers"]
            if (value := report.middle(workload, peer, "cpu_us"))
        ]
        if figures:
            parts.append(bars(workload["title"], "µs", figures))
        parts.append(markdown(report.details(workload, None)))
    return parts


def markdown(text: str) -> str:
    """The tables and headings that report.py makes, as HTML."""
    parts, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [html.escape(cell.strip()) for cell in line.strip("|").split("|")]
            if not all(set(cell) <= set("-:") for cell in cells):
                kind = "td" if rows else "th"
                rows.append("".join(f"<{kind}>{cell}</{kind}>" for cell in cells))
            continue
        if rows:
            body = "\n".join(f"<tr>{row}</tr>" for row in rows)
            parts.append(f'<div class="wide"><table>{body}</table></div>')
            rows = []
        if line.startswith("### "):
            parts.append(f"<h3>{html.escape(line[4:])}</h3>")
        elif line.startswith("- "):
            parts.append(f"<div>{html.escape(line[2:])}</div>")
        elif line:
            parts.append(f"<p>{html.escape(line)}</p>")
    return "\n".join(parts)


def render(run: dict[str, Any]) -> str:
    """The whole page."""
    parts = ["<h1>ppserver beside other servers</h1>", markdown(report.header(run))]
    if eight := at_eight(run):
        parts += ["<h2>The competition</h2>", eight]
    if pictures := curves(run):
        parts += ["<h2>Against concurrency: ASGI plaintext</h2>", *pictures]
    if picture := by_workers(run):
        parts += [
            "<h2>Over workers: ASGI plaintext</h2>",
            "<p>One worker has a core of its own; more of them share all cores with the load.</p>",
            picture,
        ]
    if kept := targets.render(run):
        parts += [markdown(kept.replace("**", ""))]
    if run["workloads"]:
        parts += ["<h2>Every workload</h2>", markdown(report.summary(run)), *workload_parts(run)]
    if run.get("idle"):
        parts += ["<h2>Memory</h2>", markdown(report.idle(run["idle"]))]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>ppserver beside other servers</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n<footer>Processor time of the whole server per request; how it is "
        "measured: docs/internals/performance.md.</footer></body></html>\n"
    )
