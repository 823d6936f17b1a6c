"""The charts of the README and of RESULTS.md, as SVG written by hand."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import ceil, floor, log10
from pathlib import Path

from measure import OURS, REFERENCE, SAFETENSORS, TENSORFLOW, TORCH, Outcome
from stage import Growth

WIDTH = 760
GROUPS = {
    OURS: ("libtfckpt", "#2f81f7"),
    REFERENCE: ("bare system calls", "#8b949e"),
    TENSORFLOW: ("TensorFlow", "#e8833a"),
    SAFETENSORS: ("safetensors (no checksum)", "#3fa66b"),
    TORCH: ("torch", "#b36bd4"),
}
# Greys that can be read on white and on black alike.
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #6e7681 }
.title { font-size: 15px; font-weight: 600 }
.name { font-weight: 600 }
.grid { stroke: #6e7681; stroke-opacity: .25 }
.axis { stroke: #6e7681; stroke-opacity: .7 }
@media (prefers-color-scheme: dark) { text { fill: #9198a1 } }
</style>"""


def write(folder: Path, outcomes: list[Outcome], growth: list[Growth]) -> list[tuple[str, str]]:
    """Writes all charts; returns the name of each file and its title."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {
        "restore.svg": ("Restore", _bars("Restore, in shares of the bare system calls' speed", outcomes, "restore")),
        "save.svg": ("Save", _bars("Save, in shares of the bare system calls' speed", outcomes, "save")),
    }
    for unit, axis in (("size", "bytes of tensors"), ("tensors", "tensors of 1 KiB")):
        curves = [curve for curve in growth if curve.unit == unit and curve.points]
        charts[f"growth-{unit}.svg"] = (
            f"Growth by {unit}",
            _lines(f"Time by the {'size' if unit == 'size' else 'number'} of tensors", axis, curves) if curves else "",
        )
    for name, (_, svg) in charts.items():
        if svg:
            (folder / name).write_text(svg)
    return [(name, title) for name, (title, svg) in charts.items() if svg]


def _svg(height: float, title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
    return "\n".join([head, STYLE, _text(16, 24, title, "title"), *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(y: float, entries: list[tuple[str, str]]) -> list[str]:
    out, x = [], 16.0
    for name, colour in entries:
        out.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="12" height="12" rx="2" fill="{colour}"/>')
        out.append(_text(x + 18, y, name))
        x += 36 + 6.6 * len(name)
    return out


def _bars(title: str, outcomes: list[Outcome], operation: str) -> str:
    """Of each workload, a bar for the best of each group."""
    shown = [o for o in outcomes if operation in o.operation and o.best(REFERENCE) and (o.ours() or o.best(OURS))]
    shown = [o for o in shown if o.size > 1 << 20 or operation == "save"]
    if not shown:
        return ""
    left, right, top, bar = 190, 70, 74, 15
    shares = [_shares(outcome) for outcome in shown]
    most = max(1.0, *(share for rows in shares for _, share in rows))
    scale: Callable[[float], float] = lambda share: left + share / most * (WIDTH - left - right)
    y, parts = float(top), []
    for outcome, rows in zip(shown, shares):
        parts.append(_text(16, y + 12, outcome.name, "name"))
        parts.append(_text(16, y + 27, outcome.operation))
        for group, share in rows:
            width = max(1.0, scale(share) - left)
            fill = GROUPS[group][1]
            parts.append(f'<rect x="{left}" y="{y:.1f}" width="{width:.1f}" height="{bar - 3}" rx="2" fill="{fill}"/>')
            parts.append(_text(left + width + 6, y + 10, f"{share:.0%}" if share >= 0.095 else f"{share:.1%}"))
            y += bar
        y += max(14, 34 - bar * len(rows))
    grid = []
    for share in (0, 0.25, 0.5, 0.75, 1.0):
        x = scale(share)
        grid.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{y:.1f}" class="grid"/>')
        grid.append(_text(x, y + 14, f"{share:.0%}", anchor="middle"))
    used = [GROUPS[g] for g in GROUPS if any(g == group for rows in shares for group, _ in rows)]
    foot = _text(
        left, y + 34, "speed, as a share of the fastest bare system calls that do the same work; longer is better"
    )
    return _svg(y + 46, title, [*_legend(50, used), *grid, *parts, foot])


def _shares(outcome: Outcome) -> list[tuple[str, float]]:
    base, out = outcome.best(REFERENCE), []
    for group in GROUPS:
        best = (outcome.ours() or outcome.best(OURS)) if group == OURS else outcome.best(group)
        if best and base:
            out.append((group, outcome.ratio(best, base).median if best is not base else 1.0))
    return out


def _lines(title: str, axis: str, curves: list[Growth]) -> str:
    """Both axes logarithmic: ours drawn through, the kernel's dashed."""
    left, right, top, height = 70, 30, 70, 330
    bottom = top + height
    points = [p for curve in curves for p in curve.points]
    xs, ys = [p[0] for p in points], [t for p in points for t in p[1:]]
    x_low, x_high = log10(min(xs)), max(log10(max(xs)), log10(min(xs)) + 1)
    y_low, y_high = floor(log10(min(ys))), ceil(log10(max(ys)))
    at_x: Callable[[float], float] = lambda x: left + (log10(x) - x_low) / (x_high - x_low) * (WIDTH - left - right)
    at_y: Callable[[float], float] = lambda t: bottom - (log10(t) - y_low) / max(1, y_high - y_low) * height
    parts = []
    for power in range(y_low, y_high + 1):
        y = at_y(10.0**power)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{WIDTH - right}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(left - 8, y + 4, _seconds(power), anchor="end"))
    last, low = -1e9, False
    for x in sorted(set(xs)):
        low = not low and at_x(x) - last < 44  # a label that has no room beside the one before it is a line lower
        last = at_x(x)
        parts.append(f'<line x1="{at_x(x):.1f}" y1="{top}" x2="{at_x(x):.1f}" y2="{bottom}" class="grid"/>')
        parts.append(_text(at_x(x), bottom + (30 if low else 18), _amount(x, axis), anchor="middle"))
    parts.append(f'<path d="M{left} {top}V{bottom}H{WIDTH - right}" fill="none" class="axis"/>')
    legend = []
    for curve, colour in zip(curves, ("#e8833a", "#2f81f7")):
        what = curve.title.split(", by")[0]
        for column, name, dash in ((1, "libtfckpt", ""), (2, "bare system calls", ' stroke-dasharray="5 4"')):
            d = "M" + "L".join(f"{at_x(p[0]):.1f} {at_y(p[column]):.1f}" for p in curve.points)
            parts.append(f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
            if column == 1:
                legend.append((f"{what}: {name}", colour))
                parts += [
                    f'<circle cx="{at_x(p[0]):.1f}" cy="{at_y(p[1]):.1f}" r="3" fill="{colour}"/>' for p in curve.points
                ]
    legend_text = _text(WIDTH - right, 50, "dashed: bare system calls", anchor="end")
    parts.append(_text((left + WIDTH - right) / 2, bottom + 46, axis, anchor="middle"))
    parts.append(
        f'<text x="16" y="{top + height / 2:g}" transform="rotate(-90 16 {top + height / 2:g})" text-anchor="middle">time</text>'
    )
    return _svg(bottom + 58, title, [*_legend(50, legend), legend_text, *parts])


def _seconds(power: int) -> str:
    if power >= 0:
        return f"{10**power:g} s"
    return f"{10 ** (power + 3):g} ms" if power >= -3 else f"{10 ** (power + 6):g} us"


def _amount(value: float, axis: str) -> str:
    if axis.startswith("bytes"):
        return f"{value / 2**30:g} GiB" if value >= 2**30 else f"{value / 2**20:g} MiB"
    return f"{value:,.0f}"
