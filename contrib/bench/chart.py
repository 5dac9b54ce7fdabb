"""Draws curves as an SVG picture, with the standard library alone."""

import html
import math
from dataclasses import dataclass

WIDTH, HEIGHT = 760, 520
LEFT, RIGHT, TOP = 64, 24, 48
LEGEND_LINE = 18
COLOURS = (
    *("#1b6ca8", "#2a9d4a", "#c77d0a", "#b3383c"),
    *("#6b4aa0", "#444444", "#c2479a", "#0f8f8f"),
    *("#7a5c2e", "#5f7d13", "#d1603d", "#5577cc"),
)
DASHES = ("", "9 4", "3 3", "12 4 3 4", "5 5", "1 4", "", "9 4", "3 3", "12 4 3 4", "5 5", "1 4")


@dataclass(frozen=True)
class Curve:
    name: str
    points: list[tuple[float, float]]


def draw(title: str, x_title: str, y_title: str, curves: list[Curve], line: bool = True) -> str:
    """Both axes logarithmic to the base of 2; `line` adds the straight one, y = x."""
    if not curves or not all(curve.points for curve in curves):
        raise ValueError("curves: expected some, with points")
    x_max = max(x for curve in curves for x, _ in curve.points)
    y_max = max(x_max if line else 1, max(y for curve in curves for _, y in curve.points))
    x_top, y_top = math.ceil(math.log2(x_max)), math.ceil(math.log2(y_max))
    y_low = math.floor(math.log2(min(1, *(y for curve in curves for _, y in curve.points))))
    bottom = HEIGHT - 64 - LEGEND_LINE * (len(curves) + line)

    def x_at(value: float) -> float:
        return LEFT + math.log2(value) / max(1, x_top) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        return bottom - (math.log2(value) - y_low) / max(1, y_top - y_low) * (bottom - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{html.escape(title)}</text>',
    ]
    for power in range(x_top + 1):
        x = x_at(2**power)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{2**power}</text>')
    for power in range(y_low, y_top + 1):
        y = y_at(2.0**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{2.0**power:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 34}" text-anchor="middle">'
        f"{html.escape(x_title)}</text>"
    )
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">'
        f"{html.escape(y_title)}</text>"
    )
    everything = list(enumerate(curves))
    if line:  # first, under the others
        everything.insert(0, (len(curves), Curve("linear", [(1, 1), (x_max, x_max)])))
    for number, curve in everything:
        straight = number == len(curves)
        colour = "#999999" if straight else COLOURS[number % len(COLOURS)]
        dash = "2 3" if straight else DASHES[number % len(DASHES)]
        style = f'stroke="{colour}" stroke-width="2" fill="none" stroke-dasharray="{dash}"'
        path = "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in curve.points)
        parts.append(f'<path d="M{path}" {style}/>')
        y = bottom + 52 + LEGEND_LINE * number
        parts.append(f'<path d="M{LEFT} {y - 4}h36" {style}/>')
        parts.append(f'<text x="{LEFT + 44}" y="{y}">{html.escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
